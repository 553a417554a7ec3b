"""Keys in the configured database itself: where no service runs, as before the first start, and with PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from service.audit import COMMAND_LINE
from service.clock import Clock
from service.config import Config
from service.keys.keyring import Keyring
from service.keys.shapes import CreatedKey, KeyReply, KeyRequest, key_fields, to_new_key
from service.store.keys import KeyStore
from service.store.opening import open_database


async def create_stored(config: Config, request: KeyRequest) -> CreatedKey:
    """A new key, with its text. Raises ServiceError."""
    async with _opened_store(config) as store:
        clock = Clock()
        keys = await Keyring.open(store, clock, config.auth.secret_key)
        key, text = await keys.create(to_new_key(request), by=COMMAND_LINE)
        return {"key": text, **key_fields(key, clock.now_ms())}


async def list_stored(config: Config) -> Sequence[KeyReply]:
    """All keys, revoked ones too."""
    async with _opened_store(config) as store:
        now = Clock().now_ms()
        return [key_fields(key, now) for _, key in await store.all()]


async def revoke_stored(config: Config, key_id: str, *, keeps_jobs: bool) -> KeyReply:
    """The key afterwards. Raises NotFoundError."""
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
