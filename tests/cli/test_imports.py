"""What a command loads: no more than it needs, as it is waited for each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from service.cli.admin_socket import admin_socket_path
from tests.support.running import RunningService, service_in_process
from tests.support.terminals import environment

PROGRAM = """
import sys
from corral.cli import {main}
status = {main}(sys.argv[1:])
print("loaded", *sorted(sys.modules), file=sys.stderr)
sys.exit(status)
"""


def loaded(main: str, *arguments: str, **environ: str) -> set[str]:
    """The modules that are loaded at the end of a command that succeeds."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(main=main), *arguments],
        env=environment(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.splitlines()[-1].split()[1:])


def of(modules: set[str], *packages: str) -> set[str]:
    """Those of these packages."""
    return {name for name in modules if any(name == one or name.startswith(f"{one}.") for one in packages)}


@pytest.mark.parametrize("main", ["main", "main_of_service"])
def test_help_loads_neither_what_draws_nor_the_service_nor_what_asks(main: str) -> None:
    # The process itself would be the service's, where its own start is run.
    assert of(loaded(main, "--help"), "rich", "service", "aiohttp", "httpx2", "asyncio") == set()


async def test_an_answer_into_a_pipe_loads_neither_what_draws_nor_the_service(service: RunningService) -> None:
    import asyncio

    modules = await asyncio.to_thread(loaded, "main", "ask", "hello", CORRAL_URL=service.url)
    assert "httpx2" in modules
    assert of(modules, "rich", "service", "aiohttp", "sqlite3") == set()


def is_servers(name: str) -> bool:
    return name == "aiohttp.web" or name.startswith(("aiohttp.web_", "service.api", "service.app", "service.workers"))


def test_keys_in_the_database_load_neither_the_server_nor_the_api(tmp_path: Path) -> None:
    modules = loaded("main_of_service", "keys", "list", OLLAMA_PROXY_DB=str(tmp_path / "queue.db"))
    assert "service.cli.stored_keys" in modules
    assert {name for name in modules if is_servers(name)} == set()
    assert of(modules, "rich", "aiohttp", "httpx2") == set()


async def test_keys_through_the_socket_load_no_database_either(tmp_path: Path) -> None:
    import asyncio

    async with service_in_process(folder=tmp_path) as service:
        socket = admin_socket_path(service.config)
        assert socket is not None
        await web.UnixSite(service.runner, socket).start()
        database = str(service.config.database.path)
        modules = await asyncio.to_thread(loaded, "main_of_service", "keys", "list", OLLAMA_PROXY_DB=database)
    assert {name for name in modules if is_servers(name)} == set()
    assert of(modules, "rich", "aiohttp", "service.store") == set()
