"""``corral watch``."""

from __future__ import annotations

import click

from corral.cli.asked import Asked, pass_asked
from corral.cli.commands.jobs import one_given
from corral.cli.completing import complete_ids
from corral.cli.following import Follower
from corral.cli.interrupts import run
from corral.cli.job_ids import JobIds


@click.command(short_help="follow a job live; Ctrl-C leaves it alone")
@click.argument("job", metavar="ID", shell_complete=complete_ids)
@pass_asked
def watch(asked: Asked, job: str) -> None:
    """Follow a job live, from the beginning of its answer. Ctrl-C stops looking, and leaves the job alone.

    The ID may be its first characters, where no other of the newest 100 begins so; - reads it from standard input.
    With --json the news of the job are printed, one object a line.
    """
    run(_watch(asked, one_given(job)))


async def _watch(asked: Asked, given: str) -> None:
    async with asked.client() as client:
        job = client.job(await JobIds(client).of(given))
        status = await Follower(asked.console).follow(job.id, job.stream())
        if status != "completed":
            # Why, and in which words, it says itself.
            await job.result()
