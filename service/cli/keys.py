"""``keys create``, ``keys list``, ``keys revoke``: through the service where one runs, else in its database."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from service.api.http.validation import validated
from service.api.management.schema import KeyRequest
from service.api.management.translation import key_fields, to_new_key
from service.audit import COMMAND_LINE
from service.cli.admin_client import NotRunningError, ask_running_service
from service.cli.logs import note, say
from service.clock import Clock
from service.config import Config
from service.errors import NotFoundError, ServiceError
from service.keys.keyring import Keyring
from service.shown_text import shown
from service.store.keys import KeyStore
from service.store.opening import open_database

_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--name", {"required": True, "help": "who has it; for lists"}),
    ("--role", {"choices": ("admin", "user"), "help": "admins see all and manage keys (default: user)"}),
    ("--requests-per-hour", {"type": int, "metavar": "N", "help": "jobs that it may make in any hour"}),
    ("--concurrency", {"type": int, "metavar": "N", "help": "how many of its jobs run at a time; the others wait"}),
    ("--models", {"metavar": "A,B", "help": "the only models that it may use"}),
    ("--max-priority", {"choices": ("high", "normal", "low"), "help": "the highest that it may ask for"}),
    ("--weight", {"type": float, "metavar": "W", "help": "its share, against 1 of everybody else"}),
    ("--owner-header", {"metavar": "NAME", "help": "the header in which it names the person behind a request"}),
    ("--retention-days", {"type": int, "metavar": "N", "help": "keep contents of its jobs so long; 0: until taken"}),
    ("--expires", {"metavar": "TIME", "help": "when it ends, such as 2027-01-31 or 2027-01-31T12:00:00Z"}),
)
_COLUMNS = ("id", "name", "role", "rate_limit", "concurrency", "models", "max_priority", "expires_at", "is_active")


def add_key_commands(commands: Any, shared: argparse.ArgumentParser) -> None:
    """Put ``keys`` and its actions among the commands."""
    keys = commands.add_parser("keys", parents=[shared], help="create, list and revoke API keys")
    actions = keys.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", parents=[shared], help="make a key and print it, this once")
    for option, settings in _OPTIONS:
        create.add_argument(option, **settings)
    actions.add_parser("list", parents=[shared], help="show all keys, without their secrets")
    revoke = actions.add_parser("revoke", parents=[shared], help="make keys worthless")
    revoke.add_argument("--keep-jobs", action="store_true", help="let its jobs go on, which are cancelled otherwise")
    revoke.add_argument("ids", nargs="+", metavar="ID", help="as keys list shows it")


async def run_key_command(
    config: Config,
    options: argparse.Namespace,
    *,
    say: Callable[[str], None] = say,
    note: Callable[[str], None] = note,
) -> int:
    """Do what was asked; the exit status. ``say`` gets what was asked for, and ``note`` what there is to know of it.

    Raises StartError.
    """
    try:
        match options.action:
            case "create":
                created = await _create(config, _asked(options))
                note(
                    f"created {created['role']} key {created['name']!r} with the id {created['id']}; it is shown once:"
                )
                say(created["key"])
            case "revoke":
                for key_id in options.ids:
                    revoked = await _revoke(config, key_id, keeps_jobs=options.keep_jobs)
                    say(f"revoked {revoked['id']} {revoked['name']!r}")
            case _:
                for line in _table(await _listed(config)):
                    say(line)
    except NotFoundError as error:
        note(f"corral: {error}; python -m service keys list shows those there are")
        return 1
    except ServiceError as error:
        note(f"corral: {error}")
        return 1
    return 0


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """The options as the fields of ``POST /api/keys``."""
    fields = {name.removeprefix("--").replace("-", "_"): None for name, _ in _OPTIONS}
    given = {name: getattr(options, name) for name in fields if getattr(options, name) is not None}
    if "models" in given:
        given["models"] = [name.strip() for name in given["models"].split(",") if name.strip()]
    return given


async def _create(config: Config, asked: dict[str, Any]) -> dict[str, Any]:
    request = validated(KeyRequest, asked)
    try:
        return await ask_running_service(config, "POST", "/api/keys", asked)
    except NotRunningError:
        async with _opened_store(config) as store:
            clock = Clock()
            keys = await Keyring.open(store, clock, config.auth.secret_key)
            key, text = await keys.create(to_new_key(request), by=COMMAND_LINE)
            return {"key": text, **key_fields(key, clock.now_ms())}


async def _listed(config: Config) -> Sequence[Mapping[str, Any]]:
    try:
        return list((await ask_running_service(config, "GET", "/api/keys"))["keys"])
    except NotRunningError:
        async with _opened_store(config) as store:
            now = Clock().now_ms()
            return [key_fields(key, now) for _, key in await store.all()]


async def _revoke(config: Config, key_id: str, *, keeps_jobs: bool) -> Mapping[str, Any]:
    if not key_id.isalnum() and not key_id.replace("-", "").isalnum():
        raise NotFoundError(f"there is no key {key_id!r}")
    try:
        query = "?keep_jobs=true" if keeps_jobs else ""
        # Before it is answered its jobs are ended, of which there may be very many.
        return await ask_running_service(config, "DELETE", f"/api/keys/{key_id}{query}", seconds=None)
    except NotRunningError:
        async with _opened_store(config) as store:
            # This works without the secret, so that keys can be revoked after the secret was lost.
            # Its jobs are ended by the services that share the database, or by the next start.
            key = await Keyring(store, b"", Clock()).revoke(key_id, keeps_jobs=keeps_jobs, by=COMMAND_LINE)
            return key_fields(key, Clock().now_ms())


@asynccontextmanager
async def _opened_store(config: Config) -> AsyncIterator[KeyStore]:
    database = await open_database(config.database)
    try:
        yield KeyStore(database)
    finally:
        await database.close()


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["there are no keys yet; make one with: python -m service keys create --name … --role admin"]
    lines = [_COLUMNS, *(tuple(_cell(row[name]) for name in _COLUMNS) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # Before widths are measured.
    return shown(",".join(value) if isinstance(value, list) else str(value))
