"""Running the application: sockets, signals, and what the operator and systemd are told."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from service.api.access.auth import AUTH
from service.api.http.fast_router import FastRouterRunner
from service.api.http.middlewares import AccessLogger
from service.app import RELOADING, build_app
from service.cli.admin_socket import admin_socket_path
from service.cli.listening import BACKLOG, bound_sockets, shown_urls
from service.cli.logs import say, set_level
from service.cli.openness import openness
from service.cli.systemd import Notifier
from service.config import Config
from service.errors import StartError

_log = logging.getLogger(__name__)

_ACCEPTED_TOGETHER = 8
"""asyncio's own loop accepts so many before it tells of the first of them, and it takes three turns to that: a crowd
would have all descriptors before one could be refused.
"""
_CLOSE_SECONDS = 5.0
_M_MMAP_THRESHOLD = -3
_BLOCK_BYTES = 128 * 1024
"""Blocks from this size on are memory of their own. It is what glibc begins with."""
_KEPT_SECONDS = 120.0
"""How long an idle connection is kept. The client should close it first, or a request may come just as we close it.
Clients written in Go close after 90 s, most others and proxies much earlier.
"""


async def serve(config: Config, read_again: Callable[[], Config], *, announce: Callable[[str], None] = say) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. SIGHUP takes over what ``read_again`` finds.

    Raises StartError when it cannot start.
    """
    stop = asyncio.Event()
    failed = False
    loop = asyncio.get_running_loop()

    def stop_for(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal failed
        if context.get("fatal"):
            failed = True
            stop.set()
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(stop_for)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    notifier = Notifier(os.environ)
    watchdog = asyncio.create_task(notifier.feed_watchdog())
    _raise_descriptors()
    app = build_app(config)
    loop.add_signal_handler(signal.SIGHUP, _reload, app, read_again)
    runner = FastRouterRunner(
        app,
        handle_signals=False,
        access_log_class=AccessLogger,
        access_log=logging.getLogger("service.access") if config.server.access_log else None,
        shutdown_timeout=_CLOSE_SECONDS,
        keepalive_timeout=_KEPT_SECONDS,
    )
    sockets = bound_sockets(config.server.host, config.server.port)
    admin_socket: Path | None = None
    try:
        await runner.setup()
        _settle_memory()
        port = await _listen(runner, sockets, config)
        admin_socket = admin_socket_path(config)
        line = f"Corral listens on {shown_urls(config.server.host, port)}"
        announce(line)
        keys = app[AUTH].keys
        if said := openness(config, has_keys=keys.has_any, has_admin=keys.has_admin):
            announce(said)
        notifier.ready(line)
        await stop.wait()
        notifier.stopping("giving running jobs time to end")
        announce(f"Stopping: running jobs have {config.server.drain_seconds:g} s to end, the others stay queued.")
    finally:
        await runner.cleanup()
        if admin_socket is not None:
            _remove(admin_socket)
        for one in sockets:
            one.close()
        watchdog.cancel()
    return int(failed)


def _reload(app: web.Application, read_again: Callable[[], Config]) -> None:
    if RELOADING not in app:
        return
    try:
        config = read_again()
    except StartError as error:
        _log.error("the configuration stays as it was: %s", error)
        app[RELOADING].refuse()
        return
    set_level(config.log.level)
    app[RELOADING].apply(config)


def _raise_descriptors() -> None:
    """Have as many descriptors as may be: each connection takes one, and so does each call to a backend."""
    present, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError) as error:
        _log.warning("the limit on open files stays at %d: %s", present, error)


def _settle_memory() -> None:
    """Let the garbage collector do less: it passes over what is there after the start, and it runs less often, as the
    hundreds of objects that each request makes are freed without it. Both give a tenth more requests a second.

    Memory of large bodies goes back to the system as soon as they are freed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    with suppress(OSError, AttributeError):
        # glibc only. Left to itself it raises this bound with each large block that is freed, and takes the next ones
        # from memory that it can give back only when nothing small lies behind them.
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES)


async def _listen(runner: web.AppRunner, sockets: list[socket.socket], config: Config) -> int:
    for one in sockets:
        await web.SockSite(runner, one, backlog=_ACCEPTED_TOGETHER).start()
        one.listen(BACKLOG)
    await _listen_for_admin(runner, admin_socket_path(config))
    return int(sockets[0].getsockname()[1])


async def _listen_for_admin(runner: web.AppRunner, path: Path | None) -> None:
    """Listen for commands. Only the service's own user may open this socket, since who opens it counts as an admin.

    Raises StartError.
    """
    if path is None:
        _log.info("no admin socket: commands cannot talk to the running service")
        return
    try:
        with _private_socket(path):
            await web.UnixSite(runner, path).start()
    except OSError as error:
        # Such as another user's file, in a folder that others may write to.
        raise StartError(
            f"admin socket {path}: {error.strerror or error}; move away what is there, or choose another folder "
            "(database.path or OLLAMA_PROXY_DB)"
        ) from error


@contextmanager
def _private_socket(path: Path) -> Iterator[None]:
    """Within this, a socket made at ``path`` is its owner's alone. One that a killed service left there is removed."""
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
