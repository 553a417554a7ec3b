"""What commands ask of the service that runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from service.cli.admin_client import NotRunningError, admin_socket_path, ask_running_service
from service.cli.serve import _listen_for_admin
from service.config import load_config
from service.errors import ServiceError, StartError


async def test_a_service_that_takes_long_is_not_taken_for_one_that_does_not_run(tmp_path: Path) -> None:
    config = load_config(environ={}, options={"database.path": str(tmp_path / "queue.db")})
    socket = admin_socket_path(config)
    assert socket is not None
    with pytest.raises(NotRunningError):
        await ask_running_service(config, "GET", "/api/keys")

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        is_over.set()

    is_over = asyncio.Event()
    async with await asyncio.start_unix_server(say_nothing, socket):
        with pytest.raises(ServiceError, match="has not answered") as raised:
            await ask_running_service(config, "DELETE", "/api/keys/x", seconds=0.01)
        await is_over.wait()
    # Else the command would do it in the database itself, or say that another process holds that.
    assert not isinstance(raised.value, NotRunningError)


async def test_what_stands_where_the_socket_should_be_ends_the_start_with_one_line(tmp_path: Path) -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    theirs = tmp_path / "queue.db.sock"
    theirs.mkdir()
    with pytest.raises(StartError, match=r"admin socket .*queue\.db\.sock: .*; move away what is there"):
        await _listen_for_admin(runner, theirs)
    assert theirs.is_dir()
    await runner.cleanup()
