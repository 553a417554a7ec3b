"""Talking to a service that runs on this machine, through its socket: whoever may open that counts as an admin."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import aiohttp

from service.config import Config
from service.errors import CorralError, StartError

_SOCKET_PATH_BYTES = 107
"""sun_path holds 108 with the final NUL (unix(7))."""
_ANSWER_SECONDS = 10.0


class NotRunningError(StartError):
    """No service holds the configured database."""


def admin_socket_path(config: Config) -> Path | None:
    """Where the running service listens for commands; None with PostgreSQL, or for a path too long for a socket."""
    if config.database.url:
        return None
    path = config.database.path.with_name(config.database.path.name + ".sock")
    return path if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES else None


async def ask_running_service(config: Config, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """One request and its JSON answer. Raises NotRunningError, or CorralError with the service's own refusal."""
    socket = admin_socket_path(config)
    if socket is None:
        raise NotRunningError("this command needs the service's socket, which only a service with SQLite has")
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
    connector = aiohttp.UnixConnector(str(socket))
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://localhost{path}", json=body) as response,
        ):
            answer = await response.json(content_type=None)
    except (aiohttp.ClientConnectionError, OSError) as error:
        raise NotRunningError(
            f"no service is running with the database {config.database.path} ({error}); "
            "start it with: python -m service"
        ) from error
    if response.status >= 400 and path != "/health":
        raise CorralError(str(answer.get("error", answer)))
    return dict(answer)
