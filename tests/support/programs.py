"""Short programs that use the client library, each a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.checkout import search_path
from tests.support.processes import PATIENCE_SECONDS

LONGEST_EXIT_SECONDS = 5.0
"""What is promised, which the long lane measures; a busy machine may take longer, and HANGS_SECONDS is a hang."""
HANGS_SECONDS = 45.0
STALLED = "stall"
"""The prompt that the programs send; what happens to it is the test's affair."""

PRELUDE = f"""
import asyncio, gc, os, signal, sys, threading
# A shell has what it starts in the background pass over Ctrl-C, and so would this program.
signal.signal(signal.SIGINT, signal.default_int_handler)
from corral import AsyncClient, Client, ConfigurationError
url = sys.argv[1]
messages = [{{"role": "user", "content": "{STALLED}"}}]
post = {{"model": "llama3.2", "messages": messages}}

def says(word):
    sys.stdout.write(word + "\\n")
    sys.stdout.flush()

def may_go_on():
    says("ready")
    sys.stdin.readline()
"""


class Program:
    """A program that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await self._process.stdout.readline()).decode().strip()

    def go_on(self) -> None:
        """Let it go on, where it has said that it waits."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    async def ends(self, longest_seconds: float = HANGS_SECONDS) -> tuple[int, str]:
        """Its exit status, and what it says until then, complaints included. Fails when that takes too long."""
        try:
            async with asyncio.timeout(longest_seconds):
                said, complaints = await self._process.communicate()
        except TimeoutError:
            raise AssertionError(f"the program did not end within {longest_seconds:g} s") from None
        assert self._process.returncode is not None
        return self._process.returncode, (said + complaints).decode()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def program(text: str, url: str, **settings: str) -> AsyncIterator[Program]:
    """Run it against this server, with every warning an error; it is gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        PRELUDE + textwrap.dedent(text),
        url,
        env=os.environ | {"PYTHONPATH": search_path()} | settings,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    running = Program(process)
    try:
        yield running
    finally:
        await running.kill()
