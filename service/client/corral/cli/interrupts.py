"""Running a command's coroutine: the first Ctrl-C cancels it, the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

from corral.cli.exits import Exit

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Its result. Raises click's Exit (130) once it has ended after a Ctrl-C."""
    return asyncio.run(_interruptible(work))


async def _interruptible(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    is_interrupted = False

    def interrupt() -> None:
        nonlocal is_interrupted
        if is_interrupted:
            if sys.stderr.isatty():
                # The cursor and the colour as they should be.
                os.write(sys.stderr.fileno(), b"\x1b[?25h\x1b[0m\n")
            os._exit(Exit.INTERRUPTED)
        is_interrupted = True
        task.cancel()

    # What a shell starts in the background is told to pass over Ctrl-C, which is not ours to change.
    is_ours = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    if is_ours:
        try:
            loop.add_signal_handler(signal.SIGINT, interrupt)
        except (ValueError, RuntimeError):
            # Not in the main thread; on Windows RuntimeError's child that says so.
            is_ours = False
    try:
        return await task
    except asyncio.CancelledError:
        if is_interrupted:
            raise click.exceptions.Exit(Exit.INTERRUPTED) from None
        task.cancel()
        await asyncio.wait((task,))
        raise
    finally:
        if is_ours and not is_interrupted:
            loop.remove_signal_handler(signal.SIGINT)
