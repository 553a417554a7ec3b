"""Serving the baselines: no access log, a free port, whose URL is printed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

ON_UVLOOP = "--uvloop"
"""The argument with which a baseline runs on the loop that the service uses; else it is aiohttp as it comes."""


def run(work: Coroutine[Any, Any, None], *, on_uvloop: bool | None = None) -> None:
    """Run to the end, on uvloop when asked to (by default: when the arguments say so), else on asyncio's own loop."""
    if on_uvloop if on_uvloop is not None else ON_UVLOOP in sys.argv:
        import uvloop

        uvloop.run(work)
    else:
        asyncio.run(work)


async def serve_app(app: web.Application) -> None:
    """Serve an application until SIGTERM."""
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=75)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        announce(runner.addresses[0][1])
        await until_stopped()
    finally:
        await runner.cleanup()


def announce(port: int) -> None:
    """What whoever started this process waits for."""
    print(f"http://127.0.0.1:{port}", flush=True)


async def until_stopped() -> None:
    """Wait for SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
