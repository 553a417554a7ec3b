"""``check``: can the configuration, the database and the backends be used? It works while the service runs, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from service.backend.client import BackendClient
from service.backend.http.connections import Connections
from service.backend.models import InstalledModel, Serial
from service.backend.shares import advice
from service.backend.sharing import runs_here
from service.cli.admin_socket import socket_in_use
from service.cli.given import Given
from service.cli.listening import bound_sockets, shown_urls
from service.cli.logs import say
from service.cli.openness import openness
from service.config import BackendConfig, Config
from service.errors import BackendError, DatabaseUnusableError, StartError
from service.job import model_key
from service.model_limits import uncarried_limits, unreachable_limits
from service.store.opening import open_database


async def check(config: Config, given: Given, *, say: Callable[[str], None] = say) -> int:
    """Print what was found; the exit status is 1 when something is wrong."""
    say("configuration  ok")
    for warning in (*uncarried_limits(config.models), *unreachable_limits(config.models)):
        say(f"warning        {warning}")
    if config.auth.demo_variables and not config.auth.required:
        say(f"warning        {openness(config, has_keys=True, has_admin=True)}")
    can_listen = _check_addresses(config, say)
    socket = _socket(config, say)
    if socket is None:
        database = await _check_database(config, say)
    else:
        database = await _check_running(config, given, socket, say)
        for line in await _model_seats(given, socket):
            say(line)
    async with Connections() as connections:
        backends = await asyncio.gather(
            *(
                _check_backend(
                    BackendClient(
                        connections,
                        backend.url,
                        backend.headers,
                        name=backend.name,
                        quick_seconds=config.health.probe_timeout_seconds,
                    ),
                    backend,
                )
                for backend in config.backends
            )
        )
    for _, lines in backends:
        for line in lines:
            say(line)
    is_ok = can_listen and database and all(ok for ok, _ in backends)
    say("all is well" if is_ok else "something is wrong, see above")
    return 0 if is_ok else 1


def _check_addresses(config: Config, say: Callable[[str], None]) -> bool:
    """Any free port is tried, as the service itself may be running at the one that is configured."""
    try:
        sockets = bound_sockets(config.server.host, 0)
    except StartError as error:
        say(f"listening      FAILED: {error}")
        return False
    for one in sockets:
        one.close()
    say(f"listening      {shown_urls(config.server.host, config.server.port)}: ok")
    return True


def _socket(config: Config, say: Callable[[str], None]) -> Path | None:
    try:
        return socket_in_use(config)
    except StartError as error:
        say(f"service        FAILED: {error}")
        return None


async def _check_running(config: Config, given: Given, socket: Path, say: Callable[[str], None]) -> bool:
    try:
        async with given.asking(socket) as asking:
            _, health = await asking.health()
    except given.failures as error:
        say(f"service        FAILED: {error}")
        return False
    database = health.get("database", {}) if isinstance(health, dict) else {}
    is_ok = bool(database.get("status") == "ok")
    say(f"service        running, {health.get('status')}")
    say(f"database       {_where(config)}: {'ok' if is_ok else database} (held by the running service)")
    return is_ok


async def _check_database(config: Config, say: Callable[[str], None]) -> bool:
    say("service        not running")
    try:
        database = await open_database(config.database)
    except DatabaseUnusableError as error:
        say(f"database       FAILED: {error}")
        return False
    await database.close()
    say(f"database       {_where(config)}: ok")
    return True


def _where(config: Config) -> str:
    return "PostgreSQL" if config.database.url else str(config.database.path)


async def _model_seats(given: Given, socket: Path) -> list[str]:
    """What the running service has learned of models that have fewer seats than their backend."""
    try:
        async with given.asking(socket) as asking:
            answer = await asking.request("GET", "/api/v1/backends")
    except given.failures:
        return []
    lines = []
    for backend in answer["backends"]:
        name, seats, limited = backend["name"], backend["seats"], backend.get("limited_models", {})
        known = [f"{model} ({one['reason']})" for model, one in limited.items() if one["reason"] != Serial.LEARNED]
        if known:
            lines.append(f"seats          backend {name}: one for each of {', '.join(known)}, as Ollama has no more")
        lines += [
            f"warning        {advice(name, model, seats)}"
            for model, one in limited.items()
            if one["reason"] == Serial.LEARNED
        ]
    return lines


async def _check_backend(client: BackendClient, backend: BackendConfig) -> tuple[bool, list[str]]:
    name = f"backend        {backend.name} at {client.url}"
    try:
        version = await client.version()
        models = await client.tags()
    except BackendError as error:
        return False, [f"{name}: FAILED: {error}; start Ollama there, or set OLLAMA_URL or [[backends]] url"]
    if not models:
        return False, [f"{name}: Ollama {version} without any model; install one with: ollama pull llama3.2"]
    names = ", ".join(model.name for model in models)
    return True, [f"{name}: ok, Ollama {version}, {len(models)} models: {names}", *_lone_seat(backend, models)]


def _lone_seat(backend: BackendConfig, models: Iterable[InstalledModel]) -> Iterator[str]:
    """A warning where the only seat keeps every other model waiting for an answer that runs."""
    allowed = {model_key(name) for name in backend.models}
    usable = (model for model in models if not allowed or model_key(model.name) in allowed)
    # Copies of a model have the same digest, and one runner.
    local = {model.digest or model_key(model.name) for model in usable if runs_here(model)}
    if backend.concurrency == 1 and len(local) > 1:
        yield (
            f"warning        backend {backend.name}: concurrency = 1, and {len(local)} models: no second one can start "
            "beside an answer, even if both fit into memory. Set concurrency to the slots of a model "
            "(OLLAMA_NUM_PARALLEL, 1 unless it is set) × the models that fit: 3 for a plain Ollama"
        )
