"""The models that backends told of last, on every database; and when they are stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.backend.backend import build_backend
from service.backend.http.connections import Connections
from service.backend.models import installed_models
from service.backend.pool import Backend, Pool
from service.clock import Clock
from service.config import BackendConfig, Config
from service.maintenance.fit_keeping import FitKeeping
from service.maintenance.list_keeping import ListKeeping
from service.maintenance.loops import keep_news
from service.store import model_lists
from service.store.database import Database, Statement
from service.store.migrations.m0009_model_lists import STATEMENTS
from service.store.model_fits import ModelFitStore
from service.store.model_lists import KeptList, ModelListStore
from tests.support.databases import Place
from tests.support.running import PATIENCE_SECONDS

BOX = "http://box:11434"
ENTRIES = [{"name": "grüße:latest", "size": 3, "details": {"families": None, "odd": "a\0b"}}, {"name": "b", "x": 1.5}]
HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 1_800_000_000_000


async def test_a_list_is_kept_as_it_came_and_replaced_by_the_next(database: Database) -> None:
    store = ModelListStore(database)
    assert await store.load(BOX) is None
    assert await store.put(BOX, KeptList(ENTRIES, NOW))
    assert await store.put("http://other:11434", KeptList([], NOW))
    assert await store.load(BOX) == KeptList(ENTRIES, NOW)
    assert await store.put(BOX, KeptList(ENTRIES[:1], NOW + 1))
    assert await store.load(BOX) == KeptList(ENTRIES[:1], NOW + 1)
    await store.put_time(BOX, NOW + 2)
    assert await store.load(BOX) == KeptList(ENTRIES[:1], NOW + 2)
    assert await store.load("http://other:11434") == KeptList([], NOW)


async def test_a_list_that_is_too_long_is_not_kept_nor_is_the_one_before(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_lists, "MOST_BYTES", 200)
    store = ModelListStore(database)
    assert await store.put(BOX, KeptList([{"name": "a"}], NOW))
    assert not await store.put(BOX, KeptList([{"name": "a" * 200}], NOW))
    assert await store.load(BOX) is None


async def test_lists_of_servers_that_are_long_gone_are_pruned(database: Database) -> None:
    store = ModelListStore(database)
    await store.put("old", KeptList([], NOW))
    await store.put("new", KeptList([], NOW + 1))
    await store.prune(NOW + 1)
    assert await store.load("old") is None
    assert await store.load("new") is not None


class HandTurnedClock(Clock):
    """Time stands still."""

    def now_ms(self) -> int:
        return NOW


class Keeping:
    """The part that keeps lists, with a backend that tells what the test says."""

    def __init__(self, pool: Pool, store: ModelListStore, fits: ModelFitStore) -> None:
        self.pool, self.store = pool, store
        self.part = ListKeeping(pool, store, HandTurnedClock())
        self.fits = FitKeeping(pool, fits, HandTurnedClock())
        self.backend: Backend
        [self.backend] = pool

    def tell(self, *names: str, at: int) -> None:
        answer: dict[str, Any] = {"models": [{"name": name} for name in names]}
        self.backend.note_installed(installed_models(answer))
        self.backend.installed_list.told_at = at
        self.pool.lists_told.set()

    async def kept(self) -> tuple[list[str], int] | None:
        """The names and the time that are stored."""
        kept = await self.store.load(self.backend.client.url)
        return None if kept is None else ([entry["name"] for entry in kept.entries], kept.told_at)


@asynccontextmanager
async def keeping(database: Database) -> AsyncIterator[Keeping]:
    config = Config(backends=(BackendConfig(name="box", url="http://box:11434"),))
    async with Connections() as connections:
        members = [build_backend(one, connections, config, Clock()) for one in config.backends]
        pool = Pool(members, config, Clock(), asyncio.Event())
        yield Keeping(pool, ModelListStore(database), ModelFitStore(database))


async def test_a_list_is_written_when_it_has_changed_and_its_time_once_an_hour_and_at_the_end(
    sqlite_place: Place,
) -> None:
    async with sqlite_place.opened() as database, keeping(database) as it:
        await it.part.save()
        assert await it.kept() is None
        for names, told_at, is_last, kept in (
            (["a"], NOW, False, (["a"], NOW)),
            (["a"], NOW + HOUR - 1, False, (["a"], NOW)),
            (["a"], NOW + HOUR, False, (["a"], NOW + HOUR)),
            (["a", "b"], NOW + HOUR + 1, False, (["a", "b"], NOW + HOUR + 1)),
            (["a", "b"], NOW + HOUR + 2, False, (["a", "b"], NOW + HOUR + 1)),
            (["a", "b"], NOW + HOUR + 2, True, (["a", "b"], NOW + HOUR + 2)),
        ):
            it.tell(*names, at=told_at)
            await it.part.save(is_last=is_last)
            assert await it.kept() == kept
        assert await it.store.load(BOX) is not None


async def test_what_is_told_is_stored_without_a_stop_and_recalled_by_the_next_process(sqlite_place: Place) -> None:
    async with sqlite_place.opened() as database:
        async with keeping(database) as it:
            task = asyncio.create_task(keep_news(it.pool.lists_told, it.part, it.fits))
            it.tell("a", at=NOW)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await it.kept() is None:
                    pass
            task.cancel()
            await asyncio.wait((task,))
        async with keeping(database) as it:
            await it.part.recall()
            assert it.backend.installed is None
            assert it.backend.is_unknown
            assert not it.backend.has_model("a:latest")
            last = it.backend.installed_list.last_told
            assert last is not None
            assert ([model.name for model in last.models], last.told_at) == (["a"], NOW)
            # The same list, told again, is no news.
            it.tell("a", at=NOW + 1)
            await it.part.save()
            assert await it.kept() == (["a"], NOW)


async def test_a_list_of_long_ago_is_forgotten_at_the_start(sqlite_place: Place) -> None:
    async with sqlite_place.opened() as database, keeping(database) as it:
        await it.store.put(BOX, KeptList([], NOW - 90 * DAY - 1))
        await it.part.recall()
        assert it.backend.installed_list.last_told is None


async def test_a_list_that_cannot_be_stored_is_told_in_the_log_and_stored_later(
    sqlite_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with sqlite_place.opened() as database, keeping(database) as it:
        await database.write(Statement("DROP TABLE model_lists", {}))
        it.tell("a", at=NOW)
        with caplog.at_level(logging.WARNING):
            await it.part.save()
        assert "the models of backend box could not be stored" in caplog.text
        await database.write(Statement(STATEMENTS[0].format(integer="INTEGER", strict=" STRICT"), {}))
        it.tell("a", at=NOW + 1)
        await it.part.save()
        assert await it.kept() == (["a"], NOW + 1)


async def test_a_list_that_is_too_long_is_named_in_the_log_once(
    sqlite_place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_lists, "MOST_BYTES", 10)
    async with sqlite_place.opened() as database, keeping(database) as it:
        with caplog.at_level(logging.WARNING):
            for told_at in (NOW, NOW + 1, NOW + 2 * HOUR):
                it.tell("a", at=told_at)
                await it.part.save()
        assert caplog.text.count("the list of backend box") == 1
        assert await it.kept() is None
