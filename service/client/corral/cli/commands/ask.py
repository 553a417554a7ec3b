"""``corral ask``."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from corral.cli.asked import Asked, pass_asked
from corral.cli.asking_options import Wished, prompt_of, takes_wishes, wished
from corral.cli.following import Follower
from corral.cli.interrupts import run
from corral.cli.optional_values import ReadingCommand

if TYPE_CHECKING:
    from corral.async_client import AsyncClient
    from corral.job import AsyncJob

_CANCEL_SECONDS = 2.0


@click.command(cls=ReadingCommand, short_help="ask a model, and print the answer while it is written")
@takes_wishes
@click.argument("prompt", required=False)
@pass_asked
def ask(asked: Asked, /, prompt: str | None, **given: Any) -> None:
    """Ask a model, and print the answer while it is written.

    Standard input is the prompt, or follows it: cat log | corral ask "what failed?" On a terminal the place in the
    queue is shown until the first word. Ctrl-C cancels the job; a second one ends at once. With --json the news of the
    job are printed, one object a line. Works at a bare Ollama, too.
    """
    how = wished(**given)
    run(_asked(asked, prompt_of(prompt), how))


async def _asked(asked: Asked, prompt: str, how: Wished) -> None:
    async with asked.client() as client:
        if client.server == "ollama":
            await _stream(asked, client, prompt, how)
        else:
            await _follow(asked, client, prompt, how)


async def _follow(asked: Asked, client: AsyncClient, prompt: str, how: Wished) -> None:
    job = await client.submit(prompt, **how.keywords())
    try:
        status = await Follower(asked.console).follow(job.id, job.stream())
    except asyncio.CancelledError:
        if await _cancel(job):
            asked.console.note(f"cancelled {job.id}")
        raise
    except BrokenPipeError:
        await _cancel(job)
        raise
    if status != "completed":
        # Why, and in which words, it says itself.
        await job.result()


async def _cancel(job: AsyncJob) -> bool:
    """Whether it could be done in time."""
    from corral.errors import CorralError

    with suppress(CorralError, TimeoutError):
        async with asyncio.timeout(_CANCEL_SECONDS):
            await job.cancel()
            return True
    return False


async def _stream(asked: Asked, client: AsyncClient, prompt: str, how: Wished) -> None:
    keywords = how.keywords()
    message: dict[str, Any] = {"role": "user", "content": prompt}
    if images := keywords.pop("images", None):
        message["images"] = images
    follower = Follower(asked.console)
    try:
        async for chunk in client.stream_chat(messages=[message], **keywords):
            if asked.is_json:
                asked.console.say_json(chunk)
                continue
            if thinking := chunk.get("thinking"):
                follower.thinking(thinking)
            for call in chunk.get("tool_calls", ()):
                asked.console.say_json(call)
            if chunk["text"]:
                follower.text(chunk["text"])
    finally:
        follower.end()
