"""``corral cancel``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from corral.cli.asked import Asked, pass_asked
from corral.cli.completing import complete_ids, complete_models
from corral.cli.exits import EndedError, Exit
from corral.cli.interrupts import run
from corral.cli.job_ids import for_each, require_ids
from corral.cli.job_lines import job_line

if TYPE_CHECKING:
    from corral.async_client import AsyncClient


@click.command(short_help="cancel jobs")
@click.option("--all", "is_all", is_flag=True, help="All of one's own that have not ended, in place of IDs.")
@click.option(
    "--status",
    type=click.Choice(("queued", "processing")),
    multiple=True,
    help="With --all: only those with this status (default: both). May be repeated.",
)
@click.option(
    "-m",
    "--model",
    metavar="MODEL",
    shell_complete=complete_models,
    help="With --all: only of this model (default: all).",
)
@click.option("--everybody", is_flag=True, help="With --all: all that this key may see, and not one's own alone.")
@click.option("--yes", is_flag=True, help="Do not ask first. Off a terminal --all needs it.")
@click.argument("ids", nargs=-1, metavar="[ID...]", shell_complete=complete_ids)
@pass_asked
def cancel(
    asked: Asked,
    ids: tuple[str, ...],
    *,
    is_all: bool,
    status: tuple[str, ...],
    model: str | None,
    everybody: bool,
    yes: bool,
) -> int:
    """Cancel jobs. Those that have ended already stay as they are.

    An ID may be its first characters, where no other of the newest 100 begins so; - reads ids from standard input.
    """
    if not is_all:
        if status or model or everybody:
            raise click.UsageError("--status, --model and --everybody choose among --all")
        require_ids(ids)
        return run(_cancel(asked, ids))
    if ids:
        raise click.UsageError("give ids, or --all")
    filters: dict[str, Any] = {}
    if status:
        filters["status"] = sorted(set(status))
    if model is not None:
        filters["model"] = model
    run(_cancel_all(asked, filters, everybody=everybody, is_sure=yes))
    return Exit.DONE


async def _cancel(asked: Asked, ids: tuple[str, ...]) -> int:
    async with asked.client() as client:

        async def cancel_one(job_id: str) -> None:
            job = await client.job(job_id).cancel()
            if asked.is_json:
                asked.console.say_json(job)
            else:
                asked.console.say(job_line(job))

        return await for_each(asked, client, ids, cancel_one)


async def _cancel_all(asked: Asked, filters: dict[str, Any], *, everybody: bool, is_sure: bool) -> None:
    async with asked.client() as client:
        number = 0
        if is_sure or (number := await _ended(client, filters, everybody=everybody, is_dry_run=True)):
            if not is_sure:
                _ask_first(number, everybody=everybody)
            number = await _ended(client, filters, everybody=everybody, is_dry_run=False)
        if asked.is_json:
            asked.console.say_json({"cancelled": number})
        elif number:
            asked.console.say(f"cancelled {_jobs(number)}")
        else:
            asked.console.note("there is nothing to cancel")


async def _ended(client: AsyncClient, filters: dict[str, Any], *, everybody: bool, is_dry_run: bool) -> int:
    from corral.call import new_call
    from corral.surface import parts_of

    prompts = parts_of(client).prompts
    return await prompts.cancel_all(new_call(None), filters, everybody=everybody, is_dry_run=is_dry_run)


def _ask_first(number: int, *, everybody: bool) -> None:
    """Raises EndedError where nobody can be asked, and Abort where the answer is no."""
    whose = "of all that this key may see" if everybody else "of one's own"
    if sys.stdin is None or not sys.stdin.isatty():
        raise EndedError(Exit.USAGE, f"{_jobs(number)} {whose} would be cancelled: give --yes", "not_confirmed")
    if not click.confirm(f"Cancel {_jobs(number)} {whose}?", err=True):
        raise EndedError(Exit.FAILED, "nothing was cancelled", "not_confirmed")


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number:,} jobs"
