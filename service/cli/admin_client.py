"""Talking to a service that runs on this machine, through its socket. A user who may open it counts as an admin."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from service.cli.logs import say
from service.config import Config
from service.errors import ServiceError, StartError

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


async def show_backends(
    config: Config, action: str | None = None, name: str | None = None, *, say: Callable[[str], None] = say
) -> int:
    """Print how the running service's backends are, after one of them was drained or resumed; the exit status.

    Raises NotRunningError.
    """
    path = "/api/v1/backends"
    try:
        if action is not None and name is not None:
            await ask_running_service(config, "POST", f"{path}/{quote(name, safe='')}/{action}")
        answer = await ask_running_service(config, "GET", path)
    except NotRunningError:
        raise
    except ServiceError as error:
        raise StartError(str(error)) from error
    for backend in answer["backends"]:
        say(_backend_line(backend))
    return 0


def _backend_line(backend: dict[str, Any]) -> str:
    rates, breaker = backend["rates"], backend["breaker"]
    parts = [
        f"{backend['name']:<16} {backend['state']:<9} {backend['running']}/{backend['seats']} seats in use",
        f"{rates['jobs_per_minute']:g} jobs/min",
        f"{rates['tokens_per_second']:g} tokens/s",
        f"breaker {breaker['state']}",
        *(_limit(model, one) for model, one in backend["limited_models"].items()),
        *(f"{model}: breaker {one['state']}" for model, one in backend["failing_models"].items()),
        f"loaded: {', '.join(backend['loaded_models']) or 'none'}" + _age(backend),
    ]
    return ", ".join(parts) + (f", {backend['error']}" if "error" in backend else "")


def _limit(model: str, limit: dict[str, Any]) -> str:
    seats = "1 seat" if limit["seats"] == 1 else f"{limit['seats']} seats"
    return f"{model}: {seats} ({limit['reason']})"


def _age(backend: dict[str, Any]) -> str:
    """Said of a list that the server does not tell anew."""
    if "loaded_models_age_seconds" not in backend:
        return ""
    seconds = backend["loaded_models_age_seconds"]
    return " (not told yet)" if seconds is None else f" (as told {seconds:g} s ago)"


async def ask_running_service(
    config: Config, method: str, path: str, body: Any = None, *, seconds: float | None = _ANSWER_SECONDS
) -> dict[str, Any]:
    """One request and its JSON answer, which is waited for so long; None: however long it takes.

    Raises NotRunningError, or ServiceError with the words of the refusal, and when no answer comes in that time.
    """
    socket = admin_socket_path(config)
    if socket is None:
        raise NotRunningError("this command needs the service's socket, which only a service with SQLite has")
    timeout = aiohttp.ClientTimeout(total=seconds)
    connector = aiohttp.UnixConnector(str(socket))
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://localhost{path}", json=body) as response,
        ):
            answer = await response.json(content_type=None)
    except TimeoutError as error:
        # It is an OSError, too, and yet somebody is there.
        raise ServiceError(
            f"the running service has not answered in {seconds:g} s; it may still do what it was asked"
        ) from error
    except (aiohttp.ClientConnectionError, OSError) as error:
        raise NotRunningError(
            f"no service is running with the database {config.database.path} ({error}); "
            "start it with: python -m service"
        ) from error
    if response.status >= 400 and path != "/health":
        raise ServiceError(str(answer.get("error", answer)))
    return dict(answer)
