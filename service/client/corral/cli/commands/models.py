"""``corral models``."""

from __future__ import annotations

from typing import Any

import click

from corral.cli.asked import Asked, pass_asked
from corral.cli.interrupts import run


@click.command(short_help="list the models")
@pass_asked
def models(asked: Asked) -> None:
    """List the models that may be asked. Works at a bare Ollama, too."""
    listed = run(_listed(asked))
    console = asked.console
    if asked.is_json:
        for model in listed:
            console.say_json(model)
        return
    if not listed:
        console.note("There are no models; install one with: ollama pull llama3.2")
        return
    console.say_table(("name", "size", "parameters", "quantization"), map(_row, listed))


async def _listed(asked: Asked) -> list[dict[str, Any]]:
    async with asked.asking_service() as asking:
        return await asking.client.list_models()


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    details = model.get("details") or {}
    return (
        str(model.get("name", "")),
        _size(model.get("size")),
        str(details.get("parameter_size") or "-"),
        str(details.get("quantization_level") or "-"),
    )


def _size(count: Any) -> str:
    """In units of a thousand, as ``ollama list`` shows them."""
    if not isinstance(count, int) or count <= 0:
        return "-"
    amount = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"
