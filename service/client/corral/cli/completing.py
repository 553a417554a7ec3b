"""What a shell is offered: names of models and backends, and recent ids. It gives up after a second."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from corral.cli.asked import Asked
from corral.logs import log

if TYPE_CHECKING:
    from corral.cli.asked import Asking

_SECONDS = 1.0
_VARIABLE = "_CORRAL_COMPLETE"
"""Set by the shell's own script, so that the process does nothing else."""


def complete_ids(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The newest jobs that the caller may see, with the beginning of their prompts."""

    async def look(asking: Asking) -> list[CompletionItem]:
        page = await asking.request("GET", "/api/v1/prompts?page_size=100")
        return [CompletionItem(job["id"], help=f"{job['status']}: {_words(job['prompt'])}") for job in page["prompts"]]

    return _found(context, incomplete, look)


def complete_models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The models that are installed."""

    async def look(asking: Asking) -> list[CompletionItem]:
        return [CompletionItem(str(model["name"])) for model in await asking.client.list_models()]

    return _found(context, incomplete, look)


def complete_backends(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of the backends."""

    async def look(asking: Asking) -> list[CompletionItem]:
        found = await asking.request("GET", "/api/v1/backends")
        return [CompletionItem(backend["name"], help=backend["state"]) for backend in found["backends"]]

    return _found(context, incomplete, look)


def _found(
    context: click.Context, incomplete: str, look: Callable[[Asking], Awaitable[list[CompletionItem]]]
) -> list[CompletionItem]:
    if os.environ.get(_VARIABLE):
        # Looking a name up cannot be cancelled, and would be waited for at the exit.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 2 * _SECONDS)
    try:
        found = asyncio.run(_in_time(_asked(context), look))
    except Exception as error:
        # Whatever goes wrong, the shell only offers nothing: words would stand in the middle of its line.
        log.debug("nothing to complete: %s", error)
        return []
    return [one for one in found if one.value.startswith(incomplete)]


async def _in_time(asked: Asked, look: Callable[[Asking], Awaitable[list[CompletionItem]]]) -> list[CompletionItem]:
    async with asyncio.timeout(_SECONDS), asked.asking_service() as asking:
        return await look(asking)


def _asked(context: click.Context) -> Asked:
    """The options of the line that is completed, which click has read but whose callbacks it has not called."""
    found = context.find_root().obj
    asked = found if isinstance(found, Asked) else Asked()
    place: click.Context | None = context
    while place is not None:
        for name, value in place.params.items():
            if name in ("url", "key", "config") and value:
                asked.take(name, value)
        place = place.parent
    return asked


def _words(prompt: Any) -> str:
    return " ".join(str(prompt).split())[:40]
