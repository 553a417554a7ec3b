"""``corral status``, ``corral result`` and ``corral request``."""

from __future__ import annotations

import click

from corral.cli.asked import Asked, pass_asked
from corral.cli.completing import complete_ids
from corral.cli.exits import EndedError, Exit
from corral.cli.interrupts import run
from corral.cli.job_ids import JobIds, for_each, given_ids, require_ids
from corral.cli.job_lines import job_line, place_words
from corral.cli.optional_values import ReadingCommand
from corral.cli.waiting import say_result, takes_wait, waited


@click.command(short_help="show where jobs stand")
@click.argument("ids", nargs=-1, metavar="ID...", shell_complete=complete_ids)
@pass_asked
def status(asked: Asked, ids: tuple[str, ...]) -> int:
    """Show where jobs stand: status, place in the queue, when it will begin, or why it failed.

    An ID may be its first characters, where no other of the newest 100 begins so; - reads ids from standard input.
    """
    require_ids(ids)
    return run(_status(asked, ids))


async def _status(asked: Asked, ids: tuple[str, ...]) -> int:
    async with asked.client() as client:

        async def show(job_id: str) -> None:
            job = await client.job(job_id).status()
            if asked.is_json:
                asked.console.say_json(job)
            else:
                asked.console.say(job_line(job))

        return await for_each(asked, client, ids, show)


@click.command(cls=ReadingCommand, short_help="print what a job has brought")
@takes_wait
@click.argument("job", metavar="ID", shell_complete=complete_ids)
@pass_asked
def result(asked: Asked, job: str, wait: str | None) -> None:
    """Print what a job has brought. One that has not ended yet is a failure (1), unless --wait is given.

    The ID may be its first characters, where no other of the newest 100 begins so; - reads it from standard input.
    """
    run(_result(asked, job, wait))


async def _result(asked: Asked, given: str, wait: str | None) -> None:
    async with asked.client() as client:
        job_id = await _one_id(JobIds(client), given)
        if wait is not None:
            say_result(asked, await waited(client, job_id, wait))
            return
        found = await client.job(job_id).status()
        if not found["final"]:
            raise EndedError(Exit.FAILED, f"the job is {place_words(found)}; --wait waits for its end", "not_final")
        say_result(asked, await waited(client, job_id, "60"))


@click.command(short_help="print the body with which Ollama is asked")
@click.argument("job", metavar="ID", shell_complete=complete_ids)
@pass_asked
def request(asked: Asked, job: str) -> None:
    """Print the body with which Ollama is asked for a job, as JSON.

    The ID may be its first characters, where no other of the newest 100 begins so; - reads it from standard input.
    """
    run(_request(asked, job))


async def _request(asked: Asked, given: str) -> None:
    async with asked.client() as client:
        asked.console.say_json(await client.job(await _one_id(JobIds(client), given)).request())


async def _one_id(ids: JobIds, given: str) -> str:
    return await ids.of(one_given(given))


def one_given(given: str) -> str:
    """The one id that is meant, which ``-`` takes from standard input. Raises UsageError where there are others."""
    found = list(given_ids((given,)))
    if len(found) != 1:
        raise click.UsageError(f"standard input has {len(found)} ids; this command takes one")
    return found[0]
