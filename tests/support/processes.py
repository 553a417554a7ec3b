"""The service, and what it talks to, as processes of their own: started, listened to, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conftest import SETTINGS
from tests.support.checkout import search_path

PATIENCE_SECONDS = 60.0
"""For what should happen at once: only a test that fails waits so long."""

_LISTENS = re.compile(r"listens on (http://\S+)")
_URL = re.compile(r"^(http://\S+)$")


class ChildProcess:
    """A process whose lines are kept as they come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.output: list[str] = []
        self.errors: list[str] = []
        self._news = asyncio.Condition()
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = (
            asyncio.create_task(self._collect(process.stdout, self.output)),
            asyncio.create_task(self._collect(process.stderr, self.errors)),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def hears(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """Wait for a line of stdout or stderr that has the pattern in it. Fails when the process ends without one."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            while True:
                for line in (*self.output, *self.errors):
                    if found := re.search(pattern, line):
                        return found
                if all(reader.done() for reader in self._readers):
                    raise AssertionError(f"it ended and never said {pattern!r}:\n{self.said()}")
                await self._news.wait()

    def said(self) -> str:
        """All of its lines, for a message."""
        return "\n".join((*self.output, *self.errors))

    def send(self, signal_number: int) -> None:
        """Send a signal; nothing happens when the process has ended already."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal_number)

    async def ended(self) -> int:
        """Wait until it has ended and all it said is here; its exit status (negative: by which signal)."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(*self._readers)
                return await self._process.wait()
        except TimeoutError:
            raise AssertionError(f"it did not end:\n{self.said()}") from None

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self.ended()

    async def _collect(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        try:
            async for line in stream:
                lines.append(line.decode(errors="replace").rstrip("\n"))
                async with self._news:
                    self._news.notify_all()
        finally:
            async with self._news:
                self._news.notify_all()


@asynccontextmanager
async def started(module: str, *arguments: str, folder: Path, **settings: str) -> AsyncIterator[ChildProcess]:
    """Run a module in a folder, with these environment variables and no other setting; it is gone afterwards."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        cwd=folder,
        env=environment | {"PYTHONPATH": search_path()} | settings,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    child = ChildProcess(process)
    try:
        yield child
    finally:
        await child.kill()


class Service:
    """A service that listens."""

    def __init__(self, process: ChildProcess, url: str) -> None:
        self.process = process
        self.url = url

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])


def service_settings(folder: Path, **settings: str) -> dict[str, str]:
    """A free port of this machine only, a database in the folder, nobody at the backend's address; or as given."""
    return {
        "CORRAL_SERVER__HOST": "127.0.0.1",
        "CORRAL_SERVER__PORT": "0",
        "OLLAMA_PROXY_DB": str(folder / "queue.db"),
        "OLLAMA_PROXY_QUIET": "1",
        # Port 9 is "discard": nobody listens there.
        "OLLAMA_URL": "http://127.0.0.1:9",
        **settings,
    }


@asynccontextmanager
async def running_service(folder: Path, *arguments: str, **settings: str) -> AsyncIterator[Service]:
    """``python -m service`` on a free port, with its database in the folder, once it listens; killed at the end."""
    async with started("service", *arguments, folder=folder, **service_settings(folder, **settings)) as process:
        yield Service(process, (await process.hears(_LISTENS))[1])


@asynccontextmanager
async def running_at_url(module: str, *arguments: str, folder: Path) -> AsyncIterator[str]:
    """A module that prints its address once it listens; its URL. The simulated Ollama is one."""
    async with started(module, *arguments, folder=folder) as process:
        yield (await process.hears(_URL))[1]


@asynccontextmanager
async def simulated_process(folder: Path, *arguments: str) -> AsyncIterator[str]:
    """A simulated Ollama on a free port; its URL."""
    async with running_at_url("service.simulated", "--port", "0", *arguments, folder=folder) as url:
        yield url
