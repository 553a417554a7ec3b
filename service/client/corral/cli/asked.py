"""What was asked for on the command line beside the command itself, and the client that asks for it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corral.cli.console import Console
from corral.cli.exits import is_expected
from corral.settings import DEFAULT_URL

if TYPE_CHECKING:
    from corral.async_client import AsyncClient
    from corral.call import Call
    from corral.surface import Parts

_CONTACT_SECONDS = 10.0
"""For the first answer of a server that takes connections."""


class Asked:
    """The global options, wherever they stand. Every command has it as click's ``context.obj``."""

    def __init__(self) -> None:
        self._given: dict[str, Any] = {}

    def refuse_address(self, command: str) -> None:
        """Raises UsageError where an address or a key was given for a command that asks nobody."""
        for name in ("url", "key"):
            if self._given.get(name):
                raise click.UsageError(f"--{name}: {command} is about the service on this machine, and asks no other")

    def take(self, name: str, value: Any) -> None:
        """An option as it was given; one behind the command wins over one before it."""
        self._given[name] = value

    @property
    def console(self) -> Console:
        """Where it is told."""
        given = self._given
        return Console(is_json=self.is_json, is_quiet=bool(given.get("quiet")), no_color=bool(given.get("no_color")))

    @property
    def is_json(self) -> bool:
        """Whether programs read what is said."""
        return bool(self._given.get("json"))

    @property
    def url(self) -> str | None:
        """The service's address, if anybody named one."""
        return self._given.get("url") or os.environ.get("CORRAL_URL") or None

    @property
    def config(self) -> Path | None:
        """The configuration file, if one was named."""
        return self._given.get("config")

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What a client raises when the service refuses, or cannot be reached."""
        from corral.errors import CorralError

        return (CorralError,)

    @asynccontextmanager
    async def client(self, socket: Path | None = None, *, is_patient: bool = False) -> AsyncIterator[AsyncClient]:
        """A client of the service at the address, or at a Unix socket. The first contact is tried once, unless
        ``is_patient``: with nobody there a command ends at once. Afterwards what fails in passing is tried again.
        """
        from corral.async_client import AsyncClient
        from corral.call import new_call
        from corral.surface import parts_of

        if socket is None:
            made = AsyncClient(self._given.get("url"), api_key=self._given.get("key"))
        else:
            from corral.unix_socket import SocketTransport

            made = AsyncClient("http://localhost", transport=SocketTransport(socket))
        async with made as client:
            if not is_patient:
                retries, timeout = client.max_retries, client.timeout
                client.max_retries, client.timeout = 0, min(timeout, _CONTACT_SECONDS)
                await parts_of(client).server.is_corral(new_call(None), is_guarded=False)
                client.max_retries, client.timeout = retries, timeout
            yield client

    @asynccontextmanager
    async def asking(self, socket: Path | None = None) -> AsyncIterator[Asking]:
        """For requests that :class:`AsyncClient` has no method for."""
        async with self.client(socket) as client:
            yield Asking(client, str(socket) if socket is not None else client.base_url)

    @asynccontextmanager
    async def asking_service(self) -> AsyncIterator[Asking]:
        """The same of the service that a command without an address means: the one that runs here with the configured
        database, through its socket; else the one at the usual address.
        """
        async with self.asking(None if self.url else self.running_socket()) as asking:
            yield asking

    def running_socket(self) -> Path | None:
        """The socket of the service that runs here, where one does, and the service is installed."""
        try:
            module = import_module("service.cli.admin_socket")
        except ModuleNotFoundError as error:
            if error.name is not None and error.name.partition(".")[0] == "service":
                return None
            raise
        try:
            found: Path | None = module.running_socket(self.config, os.environ)
        except Exception as error:
            # A file of that name may belong to something else, where nobody has named one.
            if self.config is not None or not is_expected(error):
                raise
            self.console.note(f"corral: {error}; {DEFAULT_URL} is asked")
            return None
        return found


class Asking:
    """Asks one server for what the client library has no method for."""

    def __init__(self, client: AsyncClient, where: str) -> None:
        from corral.surface import parts_of

        self.client = client
        self.where = where
        """The address or the socket's path, for people."""
        self._parts: Parts = parts_of(client)

    async def request(self, method: str, path: str, body: Any = None, *, silence_seconds: float | None = None) -> Any:
        """The JSON of the reply. ``silence_seconds``: for how long the server may say nothing, if not the usual time.

        Raises the errors of the client library, NotSupportedError at a bare Ollama.
        """
        from corral.wire import json_bytes

        call = self._new_call()
        async with self._parts.asking_as(call):
            await self._parts.prompts.require(call, is_guarded=False)
            content = None if body is None else json_bytes(body)
            return await self._parts.server.wire.request(
                method, path, content=content, headers=_named(call), silence_seconds=silence_seconds
            )

    async def require(self) -> None:
        """Raises NotSupportedError at a bare Ollama."""
        await self._parts.prompts.require(self._new_call(), is_guarded=False)

    async def health(self) -> tuple[int, Any]:
        """Status and JSON of ``GET /health``, whatever the status is."""
        return await self._parts.server.wire.health()

    def _new_call(self) -> Call:
        from corral.call import new_call

        return new_call(None)


def _named(call: Call) -> Mapping[str, str]:
    return {"X-Request-ID": call.request_id}


def asked_of(context: click.Context) -> Asked:
    """The options of this run."""
    found: Asked = context.find_root().obj
    return found


pass_asked = click.make_pass_decorator(Asked)
"""Gives a command's function its Asked as the first argument."""
