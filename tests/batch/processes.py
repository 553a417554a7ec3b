"""Batches as processes of their own."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.processes import PATIENCE_SECONDS
from tests.support.terminals import environment, program


@asynccontextmanager
async def running_batch(
    source: Path, output: Path, *options: str, url: str, file_bytes: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A batch as a process of its own, which is killed at the end of the block where it has not ended."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if file_bytes is not None:
            # What would be larger fails, as on a full disk; Python passes over the signal that comes with it.
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    process = await asyncio.create_subprocess_exec(
        *program("batch", str(source), "-o", str(output), "--url", url, "--progress", "none", *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
        preexec_fn=prepare,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Its exit status and what it said."""
    async with asyncio.timeout(10 * PATIENCE_SECONDS):
        _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()
