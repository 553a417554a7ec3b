"""``corral submit``."""

from __future__ import annotations

import re
from typing import Any

import click

from corral.cli.asked import Asked, pass_asked
from corral.cli.asking_options import prompt_of, takes_wishes, wished
from corral.cli.interrupts import run
from corral.cli.optional_values import ReadingCommand
from corral.cli.waiting import say_result, takes_wait, waited

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def _seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None or float(found[1]) <= 0:
        raise click.BadParameter(f"{text!r}: give seconds, or a time such as 90s, 10m, 2h or 1d")
    return float(found[1]) * _UNITS[found[2]]


@click.command(cls=ReadingCommand, short_help="queue a prompt, and print its id")
@takes_wishes
@click.option(
    "--not-before", metavar="TIME", help="Begin then at the earliest, as 2027-01-31T22:00:00Z (default: now)."
)
@click.option(
    "--expires-in",
    metavar="TIME",
    callback=_seconds,
    help="Give it up when it has not begun by then: 90s, 10m, 2h, 1d (default: never).",
)
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="The same prompt sent again with the same key is the same job (default: a new one).",
)
@takes_wait
@click.argument("prompt", required=False)
@pass_asked
def submit(
    asked: Asked,
    /,
    prompt: str | None,
    not_before: str | None,
    expires_in: float | None,
    idempotency_key: str | None,
    wait: str | None,
    **given: Any,
) -> None:
    """Queue a prompt, and print its id. Standard input is the prompt, or follows it.

    The job goes on without you: status, watch, result and cancel take its id.
    """
    fields = wished(**given).keywords() | {"not_before": not_before, "expires_in_seconds": expires_in}
    text = prompt_of(prompt)
    run(_submit(asked, text, fields, idempotency_key, wait))


async def _submit(asked: Asked, text: str, fields: dict[str, Any], key: str | None, wait: str | None) -> None:
    async with asked.client() as client:
        job = await client.submit(text, idempotency_key=key, **fields)
        if wait is None:
            if asked.is_json:
                asked.console.say_json(await job.status())
            else:
                asked.console.say(job.id)
            return
        asked.console.note(f"submitted {job.id}")
        say_result(asked, await waited(client, job.id, wait))
