"""``corral stats``."""

from __future__ import annotations

from typing import Any

import click

from corral.cli.asked import Asked, pass_asked
from corral.cli.interrupts import run

_COLUMNS = ("requests", "failed", "prompt_tokens", "completion_tokens")
_GROUPS = {"by_model": "model", "by_key": "name", "by_owner": "owner", "by_day": "day"}


@click.command(short_help="show what the service has done")
@pass_asked
def stats(asked: Asked) -> None:
    """Show what was asked of the service and what it took: by model, key, person and day. An admin sees everybody's,
    all others their own.
    """
    found = run(_stats(asked))
    console = asked.console
    if asked.is_json:
        console.say_json(found)
        return
    totals = found["totals"]
    since = f" since {found['period_started_at']}" if found.get("period_started_at") else ""
    console.say(f"{totals['requests']} requests{since}, {totals['failed']} failed")
    console.say(f"{totals['prompt_tokens']} tokens asked, {totals['completion_tokens']} answered")
    times = ", ".join(f"{name} {seconds:g} s" for name, seconds in totals["response_seconds"].items())
    if times:
        console.say(f"time to the answer: {times}")
    for group, name in _GROUPS.items():
        if rows := found.get(group):
            console.say("")
            console.say_table((name.replace("name", "key"), *_COLUMNS), (_row(row, name) for row in rows))


async def _stats(asked: Asked) -> dict[str, Any]:
    async with asked.asking_service() as asking:
        found: dict[str, Any] = await asking.request("GET", "/api/stats")
        return found


def _row(row: dict[str, Any], name: str) -> tuple[str, ...]:
    return (str(row.get(name) or "-"), *(str(row[column]) for column in _COLUMNS))
