"""What one process tells is heard by the others that share the database; who may have missed something is told so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.config import DatabaseConfig
from service.store.database import Database
from service.store.jobs import JobStore
from tests.support.databases import Gateway, Place, PostgresServer, own_schema
from tests.support.store_jobs import stored


class Listener:
    """Hears what is told, and can be waited for."""

    def __init__(self, database: Database) -> None:
        self.heard: list[str] = []
        self._news = asyncio.Event()
        database.listen(self._receive)

    def _receive(self, payload: str) -> None:
        self.heard.append(payload)
        self._news.set()

    async def hears(self, payload: str) -> None:
        while payload not in self.heard:
            self._news.clear()
            await self._news.wait()

    async def listens(self) -> None:
        """Until it does: it is told then that something may have been missed."""
        await self.hears("")
        self.heard.clear()


@pytest.fixture
async def told(postgres_place: Place) -> AsyncIterator[tuple[Database, Listener]]:
    """A database that tells, and a listener at another that shares it."""
    async with postgres_place.opened() as here, postgres_place.opened() as there:
        listener = Listener(there)
        await listener.listens()
        yield here, listener


async def test_what_is_told_arrives_in_its_order_and_only_at_the_others(told: tuple[Database, Listener]) -> None:
    here, listener = told
    own = Listener(here)
    payloads = [f"{number} größer" for number in range(3000)]
    for number, payload in enumerate(payloads):
        here.notify(payload)
        if number % 500 == 499:
            await listener.hears(payload)
    assert listener.heard == payloads
    assert own.heard == [""]


async def test_what_the_jobs_of_one_process_tell_is_heard_by_the_others(told: tuple[Database, Listener]) -> None:
    here, listener = told
    JobStore(here, "one").tell("a change")
    await listener.hears("a change")


async def test_where_nobody_shares_the_database_nobody_is_told(sqlite_place: Place) -> None:
    async with sqlite_place.opened() as database:
        listener = Listener(database)
        store = JobStore(database, "one")
        store.tell("a change")
        await stored(store)
        assert listener.heard == []


async def test_rather_than_a_payload_that_is_too_long_the_others_are_told_to_look_again(
    told: tuple[Database, Listener],
) -> None:
    here, listener = told
    here.notify("x" * 8000)
    here.notify("after")
    await listener.hears("after")
    assert listener.heard == ["", "after"]


async def test_more_than_can_be_kept_becomes_a_word_to_look_again(told: tuple[Database, Listener]) -> None:
    here, listener = told
    for number in range(5000):
        here.notify(str(number))
    await listener.hears("4999")
    assert "" in listener.heard


async def test_whoever_was_cut_off_is_told_that_something_may_have_been_missed(
    postgres_server: PostgresServer, gateway: Gateway
) -> None:
    async with own_schema(postgres_server) as schema:
        near = Place(DatabaseConfig(url=postgres_server.url(schema)))
        far = Place(DatabaseConfig(url=postgres_server.url(schema, gateway.folder)))
        async with near.opened() as here, far.opened() as there:
            listener = Listener(there)
            await listener.listens()
            await gateway.shut()
            here.notify("missed")
            await gateway.open()
            await listener.hears("")
            here.notify("after")
            await listener.hears("after")


async def test_another_schema_on_the_same_server_hears_nothing(
    postgres_server: PostgresServer, told: tuple[Database, Listener]
) -> None:
    here, listener = told
    async with own_schema(postgres_server) as schema:
        elsewhere = await Place(DatabaseConfig(url=postgres_server.url(schema))).open()
        elsewhere.notify("not for you")
        # Closing tells what is still to be told.
        await elsewhere.close()
    here.notify("for you")
    await listener.hears("for you")
    assert "not for you" not in listener.heard
