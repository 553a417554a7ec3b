"""Real processes of the command line, at pipes and at terminals."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from tests.conftest import SETTINGS
from tests.support.checkout import search_path
from tests.support.processes import PATIENCE_SECONDS

_READ_BYTES = 65_536


class AtTerminal:
    """A command whose stderr, and unless a pipe was asked for its stdout, is a terminal."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self._process = process
        self._master = master
        self._news = asyncio.Event()
        self._shown = b""
        self._is_over = False
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def shown(self) -> str:
        """All that the terminal has got so far."""
        return self._shown.decode(errors="replace")

    async def shows(self, text: str) -> None:
        """Wait until the terminal has got a text."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while text not in self.shown:
                assert not self._is_over, f"it ended and never showed {text!r}: {self.shown!r}"
                await self._news.wait()
                self._news.clear()

    async def ended(self) -> int:
        """Its exit status, once all that it said is here."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            status = await self._process.wait()
            while not self._is_over:
                await self._news.wait()
                self._news.clear()
        return status

    async def piped(self) -> str:
        """What went into the pipe."""
        assert self._process.stdout is not None
        return (await self._process.stdout.read()).decode()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def close(self) -> None:
        if not self._is_over:
            asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def _read(self) -> None:
        try:
            data = os.read(self._master, _READ_BYTES)
        except OSError:
            # Nobody has the other side open any more.
            data = b""
        if not data:
            self._is_over = True
            asyncio.get_running_loop().remove_reader(self._master)
        self._shown += data
        self._news.set()


@asynccontextmanager
async def at_terminal(
    *arguments: str, columns: int = 100, is_piped: bool = False, environ: Mapping[str, str] | None = None
) -> AsyncIterator[AtTerminal]:
    """Run ``python -m corral`` at a terminal; it is gone afterwards."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        process = await asyncio.create_subprocess_exec(
            *program(*arguments),
            stdin=slave,
            stdout=asyncio.subprocess.PIPE if is_piped else slave,
            stderr=slave,
            env=environment(**{"TERM": "xterm", **(environ or {})}),
            start_new_session=True,
        )
    finally:
        os.close(slave)
    terminal = AtTerminal(process, master)
    try:
        yield terminal
    finally:
        await terminal.kill()
        terminal.close()


async def at_pipes(*arguments: str, stdin: bytes = b"", **environ: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of ``python -m corral``."""
    process = await asyncio.create_subprocess_exec(
        *program(*arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**environ),
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def program(*arguments: str) -> Sequence[str]:
    """The command line as a process of its own."""
    return (sys.executable, "-W", "error", "-m", "corral", *arguments)


def environment(**environ: str) -> dict[str, str]:
    """Without what a developer has set."""
    colors = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM")
    kept = {name: value for name, value in os.environ.items() if not name.startswith((*SETTINGS, *colors))}
    return {**kept, "PYTHONPATH": search_path(), **environ}
