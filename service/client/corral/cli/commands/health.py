"""``corral health``."""

from __future__ import annotations

from typing import Any

import click

from corral.cli.asked import Asked, pass_asked
from corral.cli.exits import Exit
from corral.cli.interrupts import run


@click.command(short_help="show how the service is")
@pass_asked
def health(asked: Asked) -> int:
    """Show how the service is: its database, backends and queue. The exit status is 1 while it can take nothing."""
    status, found, where = run(_health(asked))
    if asked.is_json:
        asked.console.say_json(found)
    else:
        for line in _lines(found, where):
            asked.console.say(line)
    return Exit.FAILED if status >= 400 else Exit.DONE


async def _health(asked: Asked) -> tuple[int, dict[str, Any], str]:
    async with asked.asking_service() as asking:
        await asking.require()
        status, found = await asking.health()
        return status, found if isinstance(found, dict) else {}, asking.where


def _lines(found: dict[str, Any], where: str) -> list[str]:
    version = f", Corral {found['version']}" if "version" in found else ""
    lines = [f"service   {found.get('status', 'unknown')} at {where}{version}"]
    if database := found.get("database"):
        lines.append(f"database  {database['status']}" + (f": {database['error']}" if "error" in database else ""))
    for backend in found.get("backends", ()):
        ollama = f"Ollama {backend['version']}, " if "version" in backend else ""
        error = f": {backend['error']}" if "error" in backend else ""
        lines.append(
            f"backend   {backend['name']}: {backend['status']}, {ollama}"
            f"{backend['running']}/{backend['seats']} seats in use{error}"
        )
    if queue := found.get("queue"):
        lines.append(f"queue     {queue['queued']} queued, {queue['processing']} processing")
    return lines
