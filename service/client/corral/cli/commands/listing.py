"""``corral list``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from corral.cli.asked import Asked, pass_asked
from corral.cli.completing import complete_models
from corral.cli.interrupts import run
from corral.cli.job_lines import detail, duration

if TYPE_CHECKING:
    from corral.async_client import AsyncClient

_STATUSES = ("queued", "processing", "completed", "failed", "cancelled")
_PAUSE_SECONDS = 2.0
_SHORTEST_ID = 8
_LONGEST_PROMPT = 200


@click.command("list", short_help="list jobs, newest first")
@click.option("--status", type=click.Choice(_STATUSES), help="Only those with this status (default: all).")
@click.option(
    "-m", "--model", metavar="MODEL", shell_complete=complete_models, help="Only those of this model (default: all)."
)
@click.option("--text", metavar="TEXT", help="Only those with this text in the prompt (default: all).")
@click.option("-n", "number", type=click.IntRange(min=1), default=20, metavar="N", help="So many (default: 20).")
@click.option("--follow", is_flag=True, help="Go on: ask every 2 s, and print what is new or changed.")
@pass_asked
def list_jobs(
    asked: Asked, *, status: str | None, model: str | None, text: str | None, number: int, follow: bool
) -> None:
    """List the jobs that you may see, newest first; with --follow oldest first, until Ctrl-C."""
    filters = {"status": status, "model": model, "text": text}
    run(_followed(asked, filters, number) if follow else _listed(asked, filters, number))


async def _listed(asked: Asked, filters: dict[str, str | None], number: int) -> None:
    async with asked.client() as client:
        if asked.is_json:
            async with aclosing(_newest(client, filters, number)) as jobs:
                async for job in jobs:
                    asked.console.say_json(job)
            return
        found = [job async for job in _newest(client, filters, number)]
    if not found:
        asked.console.note("there are no such jobs")
        return
    length = _id_length([job["id"] for job in found])
    asked.console.say_table(
        ("id", "status", "model", "age", "prompt"),
        (
            (job["id"][:length], _status(job), str(job["model"]), _age(job["created_at"]), _one_line(job["prompt"]))
            for job in found
        ),
    )


async def _newest(client: AsyncClient, filters: dict[str, str | None], number: int) -> AsyncGenerator[Any]:
    count = 0
    async for job in client.jobs(**filters):
        yield job
        count += 1
        if count == number:
            return


async def _followed(asked: Asked, filters: dict[str, str | None], number: int) -> None:
    from corral.cli.changes import Changes

    async with asked.client() as client:
        changes = Changes(client, filters, number)
        is_away = False
        while True:
            try:
                for job in await changes.look():
                    if asked.is_json:
                        asked.console.say_json(job)
                    else:
                        asked.console.say(_line(job))
                if is_away:
                    is_away = False
                    asked.console.note("the service is back")
            except changes.passing as error:
                if not is_away:
                    is_away = True
                    asked.console.note(f"{error}; it is asked again")
            await asyncio.sleep(_PAUSE_SECONDS)


def _line(job: Any) -> str:
    more = detail(job)
    status = f"{job['status']} ({more})" if more else job["status"]
    return f"{job['id']}  {job['updated_at'][11:19]}  {status}  {job['model']}  {_one_line(job['prompt'])}"


def _status(job: Any) -> str:
    position = job.get("position")
    return f"{job['status']} {position}" if position is not None and job["status"] == "queued" else str(job["status"])


def _age(moment: str) -> str:
    return duration((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


def _one_line(prompt: Any) -> str:
    return " ".join(str(prompt).split())[:_LONGEST_PROMPT]


def _id_length(ids: Sequence[str]) -> int:
    """So many characters that no two of these begin alike."""
    length = _SHORTEST_ID
    while length < 36 and len({one[:length] for one in ids}) < len(ids):
        length += 1
    return length
