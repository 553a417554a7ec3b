"""Serving the baselines: the same event loop as the service's, no access log, a free port, whose URL is printed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from aiohttp import web


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, on uvloop where the service would use it."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


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
