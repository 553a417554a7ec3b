"""The socket of the service that runs."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from aiohttp import web

from service.cli.admin_socket import admin_socket_path, running_socket, socket_in_use
from service.cli.serve import _listen_for_admin
from service.config import load_config
from service.errors import StartError
from tests.support.command_line import ran


async def test_a_service_that_takes_long_is_not_taken_for_one_that_does_not_run(tmp_path: Path) -> None:
    config = load_config(environ={}, options={"database.path": str(tmp_path / "queue.db")})
    path = admin_socket_path(config)
    assert path is not None
    assert socket_in_use(config) is None

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.release()

    ended = asyncio.Semaphore(0)
    async with await asyncio.start_unix_server(say_nothing, path):
        # Else the command would do it in the database itself, or say that another process holds that.
        assert await asyncio.to_thread(socket_in_use, config) == path
        environ = {"OLLAMA_PROXY_DB": str(tmp_path / "queue.db")}
        assert await asyncio.to_thread(running_socket, None, environ) == path
        for _ in range(2):
            await ended.acquire()


async def test_what_a_killed_service_left_is_no_service(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(tmp_path / "queue.db.sock"))
    config = load_config(environ={}, options={"database.path": str(tmp_path / "queue.db")})
    assert socket_in_use(config) is None
    listed = await ran("keys", "list", environ={"OLLAMA_PROXY_DB": str(tmp_path / "queue.db")})
    assert (listed.status, listed.out) == (0, "")
    assert "there are no keys yet" in listed.err


async def test_what_stands_where_the_socket_should_be_ends_the_start_with_one_line(tmp_path: Path) -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    theirs = tmp_path / "queue.db.sock"
    theirs.mkdir()
    with pytest.raises(StartError, match=r"admin socket .*queue\.db\.sock: .*; move away what is there"):
        await _listen_for_admin(runner, theirs)
    assert theirs.is_dir()
    await runner.cleanup()
