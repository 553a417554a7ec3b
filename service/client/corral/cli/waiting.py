"""Waiting for a job's end, for as long as ``--wait`` says, and printing what it has brought."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from corral.cli.exits import EndedError, Exit
from corral.cli.optional_values import OptionalValue, is_number

if TYPE_CHECKING:
    from corral.async_client import AsyncClient
    from corral.cli.asked import Asked

F = TypeVar("F", bound=Callable[..., Any])

FOR_EVER = "for ever"


def takes_wait(function: F) -> F:
    """Give a command ``--wait [SECONDS]``."""
    option = click.option(
        "--wait",
        cls=OptionalValue,
        takes=is_number,
        left_out=FOR_EVER,
        metavar="[SECONDS]",
        help="Wait for the end, so long at most, and print what it has brought (default: no wait; without SECONDS: as "
        "long as it takes).",
    )
    return option(function)


async def waited(client: AsyncClient, job_id: str, wait: str) -> Any:
    """The job once it is final. Raises EndedError (124) when time runs out; the job goes on."""
    from corral.call import new_call
    from corral.surface import parts_of

    if wait != FOR_EVER and not is_number(wait):
        raise click.UsageError(f"--wait {wait}: give a number of seconds")
    seconds = None if wait == FOR_EVER else float(wait)
    try:
        async with asyncio.timeout(seconds) as time:
            return await parts_of(client).prompts.result(new_call(None), job_id)
    except TimeoutError as error:
        if not time.expired():
            raise
        raise EndedError(
            Exit.OUT_OF_TIME,
            f"the job {job_id} has not ended within {seconds:g} s; it goes on: corral result {job_id} --wait",
            "timeout",
        ) from error


def say_result(asked: Asked, job: Any) -> None:
    """Print what a job that is final has brought. Raises JobFailedError and JobCancelledError."""
    from corral.replies import raise_failure

    if asked.is_json:
        asked.console.say_json(job)
        raise_failure(job)
        return
    raise_failure(job)
    text = job.get("result", "")
    asked.console.write(text if text.endswith("\n") else text + "\n")
    for call in job.get("tool_calls", ()):
        asked.console.say_json(call)
