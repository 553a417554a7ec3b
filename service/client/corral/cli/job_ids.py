"""Which jobs are meant: by their ids, by the first characters of them, or by what standard input says."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from corral.cli.exits import EndedError, Exit, error_json, error_words, exit_status

if TYPE_CHECKING:
    from corral.async_client import AsyncClient
    from corral.cli.asked import Asked

_WHOLE = re.compile(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_MOST_SHOWN = 5


async def newest_ids(client: AsyncClient) -> list[str]:
    """The ids of the newest 100 jobs that the caller may see."""
    from corral.call import new_call
    from corral.surface import parts_of

    page, _ = await parts_of(client).prompts.page(new_call(None), {})
    return [job["id"] for job in page]


class JobIds:
    """Finds out which job an argument means. The newest jobs are asked for once, and only where that is needed."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._newest: list[str] | None = None

    async def of(self, given: str) -> str:
        """The whole id. Raises EndedError where it is not one job's."""
        if _WHOLE.fullmatch(given):
            return given.lower()
        if self._newest is None:
            self._newest = await newest_ids(self._client)
        found = [one for one in self._newest if one.startswith(given.lower())]
        if len(found) == 1:
            return found[0]
        if not found:
            raise EndedError(
                Exit.FAILED,
                f"no job among the newest {len(self._newest)} has an id that begins with {given!r}",
                "not_found",
            )
        shown = ", ".join(found[:_MOST_SHOWN]) + (", …" if len(found) > _MOST_SHOWN else "")
        raise EndedError(
            Exit.USAGE, f"{given!r} is the beginning of {len(found)} ids: {shown}; write more of it", "ambiguous"
        )


def require_ids(arguments: Sequence[str]) -> None:
    """Raises UsageError where there is none."""
    if not arguments:
        raise click.UsageError("give the id of a job, or - to read ids from standard input")


def given_ids(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments; for ``-`` the words of standard input, as they come."""
    for argument in arguments:
        if argument != "-":
            yield argument
            continue
        for line in sys.stdin.buffer if sys.stdin is not None else ():
            yield from line.decode("utf-8", "replace").split()


async def for_each(
    asked: Asked, client: AsyncClient, arguments: Sequence[str], act: Callable[[str], Awaitable[Any]]
) -> int:
    """Do something with each job. What fails for one is told, and the others have their turn; the exit status is that
    of the first failure. Raises what would fail for all of them: a service that is away, a key that may not do it.
    """
    ids, status = JobIds(client), int(Exit.DONE)
    for given in given_ids(arguments):
        try:
            await act(await ids.of(given))
        except Exception as error:
            if not _is_of_one_job(error):
                raise
            if asked.is_json:
                asked.console.fail_json(error_json(error))
            else:
                asked.console.fail(f"corral: {given}: {error_words(error)}")
            status = status or exit_status(error)
    return status


def _is_of_one_job(error: Exception) -> bool:
    from corral import errors

    kinds = (errors.NotFoundError, errors.BadRequestError, errors.JobFailedError, errors.JobCancelledError, EndedError)
    return isinstance(error, kinds)
