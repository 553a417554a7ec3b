"""``corral backends``."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from corral.cli.asked import Asked, pass_asked
from corral.cli.completing import complete_backends
from corral.cli.interrupts import run

_PATH = "/api/v1/backends"


@click.command(short_help="show the backends; drain or resume one")
@click.argument("action", type=click.Choice(("drain", "resume")), required=False)
@click.argument("name", required=False, metavar="[NAME]", shell_complete=complete_backends)
@pass_asked
def backends(asked: Asked, action: str | None, name: str | None) -> None:
    """Show the service's backends; `drain NAME` sends one nothing more, `resume NAME` undoes that."""
    if (action is None) != (name is None):
        raise click.UsageError(f"{action}: give the name of a backend, too; `corral backends` shows them")
    for backend in run(_shown(asked, action, name)):
        if asked.is_json:
            asked.console.say_json(backend)
        else:
            asked.console.say(_line(backend))


async def _shown(asked: Asked, action: str | None, name: str | None) -> list[dict[str, Any]]:
    async with asked.asking_service() as asking:
        if action is not None and name is not None:
            await asking.request("POST", f"{_PATH}/{quote(name, safe='')}/{action}")
            done = "drained" if action == "drain" else "resumed"
            asked.console.note(f"{done} {name} at the service {asking.where}")
        return list((await asking.request("GET", _PATH))["backends"])


def _line(backend: dict[str, Any]) -> str:
    rates, breaker = backend["rates"], backend["breaker"]
    parts = [
        f"{backend['name']:<16} {backend['state']:<9} {backend['running']}/{backend['seats']} seats in use",
        f"{rates['jobs_per_minute']:g} jobs/min",
        f"{rates['tokens_per_second']:g} tokens/s",
        f"breaker {breaker['state']}",
        *(_limit(model, one) for model, one in backend["limited_models"].items()),
        *(f"{model}: breaker {one['state']}" for model, one in backend["failing_models"].items()),
        f"loaded: {', '.join(backend['loaded_models']) or 'none'}" + _age(backend),
    ]
    return ", ".join(parts) + (f", {backend['error']}" if "error" in backend else "")


def _limit(model: str, limit: dict[str, Any]) -> str:
    seats = "1 seat" if limit["seats"] == 1 else f"{limit['seats']} seats"
    return f"{model}: {seats} ({limit['reason']})"


def _age(backend: dict[str, Any]) -> str:
    """Said of a list that the server does not tell anew."""
    if "loaded_models_age_seconds" not in backend:
        return ""
    seconds = backend["loaded_models_age_seconds"]
    return " (not told yet)" if seconds is None else f" (as told {seconds:g} s ago)"
