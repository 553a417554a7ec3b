"""``keys create``, ``keys list``, ``keys revoke``: through a service, else in the configured database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import click

from service.cli.admin_socket import socket_in_use
from service.cli.configured import read_config
from service.cli.given import Asking, Given, given_of
from service.config import Config
from service.errors import InvalidRequestError, NotFoundError
from service.keys.shapes import KeyRequest
from service.validation import validated


class UnusableError(click.ClickException):
    """A value that no key can have."""

    exit_code = 2


_COLUMNS = ("id", "name", "role", "rate_limit", "concurrency", "models", "max_priority", "expires_at", "is_active")


@click.group("keys", short_help="create, list and revoke API keys")
def keys_command() -> None:
    """Create, list and revoke API keys.

    They are those of the service at --url (or CORRAL_URL), with the key of an admin; else of the service that runs here
    with the configured database, through its socket; else they are read and written in that database itself, which is
    how the first admin key is made.
    """


@keys_command.command("create", short_help="make a key and print it, this once")
@click.option("--name", required=True, metavar="NAME", help="Who has it; for lists.")
@click.option("--role", type=click.Choice(("admin", "user")), help="Admins see all and manage keys (default: user).")
@click.option("--requests-per-hour", type=int, metavar="N", help="Jobs that it may make in any hour (default: any).")
@click.option("--concurrency", type=int, metavar="N", help="How many of its jobs run at a time (default: any).")
@click.option("--models", metavar="A,B", help="The only models that it may use (default: all).")
@click.option(
    "--max-priority",
    type=click.Choice(("high", "normal", "low")),
    help="The highest that it may ask for (default: high).",
)
@click.option("--weight", type=float, metavar="W", help="Its share, against 1 of everybody else (default: 1).")
@click.option(
    "--owner-header", metavar="NAME", help="The header in which it names the person behind a request (default: none)."
)
@click.option(
    "--retention-days",
    type=int,
    metavar="N",
    help="Keep contents of its jobs so long; 0: until they are taken (default: as long as the jobs).",
)
@click.option(
    "--expires", metavar="TIME", help="When it ends, such as 2027-01-31 or 2027-01-31T12:00:00Z (default: never)."
)
@click.pass_context
def create_key(context: click.Context, /, **given: Any) -> None:
    """Make a key and print it. It is shown this once, and stored nowhere in this form."""
    asked = {name: value for name, value in given.items() if value is not None}
    if "models" in asked:
        asked["models"] = [name.strip() for name in asked["models"].split(",") if name.strip()]
    try:
        request = validated(KeyRequest, asked)
    except InvalidRequestError as error:
        raise UnusableError(str(error)) from None
    own = given_of(context)

    async def create() -> Mapping[str, Any]:
        async with _place_of_keys(own) as place:
            created = await place.create(request, asked)
            own.console.note(
                f"created {created['role']} key {created['name']!r} with the id {created['id']} {place.where}; "
                "it is shown once:"
            )
            return created

    created = asyncio.run(create())
    if own.is_json:
        own.console.say_json(created)
    else:
        own.console.say(str(created["key"]))


@keys_command.command("list", short_help="show all keys, without their secrets")
@click.pass_context
def list_keys(context: click.Context) -> None:
    """Show all keys, revoked ones too, without their secrets."""
    own = given_of(context)

    async def listed() -> Sequence[Mapping[str, Any]]:
        async with _place_of_keys(own) as place:
            return await place.all()

    keys = asyncio.run(listed())
    if own.is_json:
        for key in keys:
            own.console.say_json(key)
    elif keys:
        own.console.say_table(_COLUMNS, (tuple(_cell(key[name]) for name in _COLUMNS) for key in keys))
    else:
        own.console.note("there are no keys yet; make one with: python -m service keys create --name … --role admin")


@keys_command.command("revoke", short_help="make keys worthless")
@click.option("--keep-jobs", is_flag=True, help="Let its jobs go on, which are cancelled otherwise.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.pass_context
def revoke_keys(context: click.Context, ids: tuple[str, ...], *, keep_jobs: bool) -> None:
    """Make the keys with these IDs, as `keys list` shows them, worthless at once, and cancel their jobs."""
    own = given_of(context)

    async def revoke() -> None:
        async with _place_of_keys(own) as place:
            for key_id in ids:
                revoked = await _revoked(own, place, key_id, keeps_jobs=keep_jobs)
                if own.is_json:
                    own.console.say_json(revoked)
                else:
                    own.console.say(f"revoked {revoked['id']} {revoked['name']!r}")
            own.console.note(f"revoked {place.where}")

    asyncio.run(revoke())


async def _revoked(own: Given, place: _Place, key_id: str, *, keeps_jobs: bool) -> Mapping[str, Any]:
    if not key_id.replace("-", "").isalnum():
        raise _there_is_none(f"there is no key {key_id!r}")
    try:
        return await place.revoke(key_id, keeps_jobs=keeps_jobs)
    except NotFoundError as error:
        raise _there_is_none(str(error)) from None
    except own.failures as error:
        if getattr(error, "status_code", None) != 404:
            raise
        raise _there_is_none(str(getattr(error, "message", error))) from None


def _there_is_none(words: str) -> click.ClickException:
    return click.ClickException(f"{words}; `keys list` shows those there are")


class _Place(Protocol):
    """Where keys are."""

    @property
    def where(self) -> str:
        """In words, to follow what was done."""

    async def create(self, request: KeyRequest, asked: Mapping[str, Any]) -> Mapping[str, Any]: ...

    async def all(self) -> Sequence[Mapping[str, Any]]: ...

    async def revoke(self, key_id: str, *, keeps_jobs: bool) -> Mapping[str, Any]: ...


class _AtService:
    """Keys of a service that runs."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self.where = f"at the service {asking.where}"

    async def create(self, request: KeyRequest, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        created: Mapping[str, Any] = await self._asking.request("POST", "/api/keys", asked)
        return created

    async def all(self) -> Sequence[Mapping[str, Any]]:
        return list((await self._asking.request("GET", "/api/keys"))["keys"])

    async def revoke(self, key_id: str, *, keeps_jobs: bool) -> Mapping[str, Any]:
        query = "?keep_jobs=true" if keeps_jobs else ""
        # Before it is answered its jobs are ended, of which there may be very many.
        found: Mapping[str, Any] = await self._asking.request(
            "DELETE", f"/api/keys/{key_id}{query}", silence_seconds=_REVOCATION_SECONDS
        )
        return found


_REVOCATION_SECONDS = 86_400.0


class _InDatabase:
    """Keys of a service that does not run, or that has no socket."""

    def __init__(self, config: Config) -> None:
        self._config = config
        name = "PostgreSQL" if config.database.url else str(config.database.path)
        self.where = f"in the database {name}"

    async def create(self, request: KeyRequest, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        from service.cli.stored_keys import create_stored

        return await create_stored(self._config, request)

    async def all(self) -> Sequence[Mapping[str, Any]]:
        from service.cli.stored_keys import list_stored

        return await list_stored(self._config)

    async def revoke(self, key_id: str, *, keeps_jobs: bool) -> Mapping[str, Any]:
        from service.cli.stored_keys import revoke_stored

        return await revoke_stored(self._config, key_id, keeps_jobs=keeps_jobs)


@asynccontextmanager
async def _place_of_keys(own: Given) -> AsyncIterator[_Place]:
    """The service at the address that was given, else the one that runs here, else the database. Raises StartError."""
    socket = None
    if own.url is None:
        config = read_config(own.config, os.environ)
        socket = socket_in_use(config)
        if socket is None:
            yield _InDatabase(config)
            return
    async with own.asking(socket) as asking:
        yield _AtService(asking)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, list) else str(value)
