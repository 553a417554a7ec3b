"""What fits together on backends, on every database; and when it is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.backend.backend import Backend, build_backend
from service.backend.http.connections import Connections
from service.backend.models import InstalledModel
from service.backend.pool import Pool
from service.clock import Clock
from service.config import BackendConfig, Config
from service.maintenance.fit_keeping import FitKeeping
from service.store.database import Database, Statement
from service.store.migrations.m0010_model_fits import STATEMENTS
from service.store.model_fits import KeptFits, ModelFitStore
from tests.support.databases import Place

BOX = "http://box:11434"
DAY = 86_400_000
NOW = 1_800_000_000_000
A, B, C = "a:latest", "b:latest", "c:latest"
AB = frozenset({A, B})
SETS = [[["1", ""], ["2", '{"num_ctx":8192}']]]
PAIR = KeptFits("0.24.0", [[["1", ""], ["2", ""]]], [])


async def test_what_fits_is_kept_as_it_was_put_and_replaced_by_the_next(database: Database) -> None:
    store = ModelFitStore(database)
    assert await store.load(BOX) is None
    first = KeptFits("0.24.0", SETS, [(["1", "3"], NOW + DAY)])
    await store.put(BOX, first, NOW)
    await store.put("http://other:11434", PAIR, NOW)
    assert await store.load(BOX) == first
    await store.put(BOX, KeptFits("0.33.0", [], []), NOW)
    assert await store.load(BOX) == KeptFits("0.33.0", [], [])
    assert await store.load("http://other:11434") == PAIR


async def test_what_fits_on_servers_that_are_long_gone_is_pruned(database: Database) -> None:
    store = ModelFitStore(database)
    for backend in ("old", "new", "used"):
        await store.put(backend, PAIR, NOW + (backend == "new"))
    await store.note_use("used", NOW + 1)
    await store.prune(NOW + 1)
    assert [await store.load(backend) for backend in ("old", "new", "used")] == [None, PAIR, PAIR]


class HandTurnedClock(Clock):
    """Time stands still."""

    def now_ms(self) -> int:
        return NOW


class Keeping:
    """The part that keeps what fits, with a backend that is told what the test says."""

    def __init__(self, pool: Pool, store: ModelFitStore) -> None:
        self.pool, self.store = pool, store
        self.part = FitKeeping(pool, store, HandTurnedClock())
        self.backend: Backend
        [self.backend] = pool
        self.fitting = self.backend.placement.fitting

    def tell(self, version: str = "0.24.0", **digests: str) -> None:
        self.backend.note_version(version)
        self.backend.note_installed(tuple(InstalledModel(name, digest, 0, {}) for name, digest in digests.items()))


@asynccontextmanager
async def keeping(database: Database) -> AsyncIterator[Keeping]:
    config = Config(backends=(BackendConfig(name="box", url=BOX),))
    async with Connections() as connections:
        members = [build_backend(one, connections, config, Clock()) for one in config.backends]
        yield Keeping(Pool(members, config, Clock(), asyncio.Event()), ModelFitStore(database))


async def test_what_fits_is_written_only_when_it_has_changed(sqlite_place: Place) -> None:
    async with sqlite_place.opened() as database, keeping(database) as it:
        await it.part.recall()
        it.tell(a="1", b="2", c="3")
        await it.part.save()
        assert await it.store.load(BOX) is None
        it.fitting.remember({A, B})
        await it.part.save()
        assert await it.store.load(BOX) == PAIR
        await database.write(Statement("DELETE FROM model_fits", {}))
        it.fitting.remember({A, B})
        await it.part.save()
        assert await it.store.load(BOX) is None
        it.fitting.refuse({A, B, C}, NOW)
        await it.part.save()
        assert await it.store.load(BOX) == PAIR._replace(unfit=[(["1", "2", "3"], NOW + 7 * DAY)])


async def test_what_is_kept_holds_once_a_backend_has_told_its_version_and_models(sqlite_place: Place) -> None:
    async with sqlite_place.opened() as database:
        await ModelFitStore(database).put(BOX, PAIR._replace(unfit=[(["2", "3"], NOW + DAY)]), NOW)
        async with keeping(database) as it:
            await it.part.recall()
            # Before that nothing may be written in its place.
            await it.part.save()
            assert (it.fitting.old, it.fitting.unfit) == ([], {})
            it.tell(a="1", b="2", c="3")
            assert (it.fitting.old, it.fitting.unfit) == ([AB], {frozenset({B, C}): NOW + DAY})
            # Another model under the same name.
            it.tell(a="1", b="4", c="3")
            assert (it.fitting.old, it.fitting.unfit) == ([], {})


async def test_another_version_is_written_without_what_did_not_fit_before(sqlite_place: Place) -> None:
    async with sqlite_place.opened() as database:
        await ModelFitStore(database).put(BOX, PAIR._replace(unfit=[(["2", "3"], NOW + DAY)]), NOW)
        async with keeping(database) as it:
            await it.part.recall()
            it.tell("0.33.0", a="1", b="2", c="3")
            assert (it.fitting.old, it.fitting.unfit) == ([AB], {})
            await it.part.save()
            assert await it.store.load(BOX) == PAIR._replace(version="0.33.0")
            it.fitting.refuse({B, C}, NOW)
            it.tell("0.34.0", a="1", b="2", c="3")
            assert it.fitting.unfit == {}


async def test_a_backend_of_a_new_configuration_has_what_was_kept_of_it(sqlite_place: Place) -> None:
    async with sqlite_place.opened() as database:
        await ModelFitStore(database).put(BOX, PAIR, NOW)
        async with keeping(database) as it:
            it.tell(a="1", b="2", c="3")
            it.fitting.remember({B, C})
            await it.part.save()
            assert it.fitting.old == [AB]
            kept = await it.store.load(BOX)
            assert kept is not None
            assert len(kept.fitting) == 2


async def test_what_fits_on_a_backend_that_is_not_used_any_more_is_forgotten_at_the_start(sqlite_place: Place) -> None:
    async with sqlite_place.opened() as database, keeping(database) as it:
        for backend in (BOX, "http://gone:11434"):
            await it.store.put(backend, PAIR, NOW - 90 * DAY - 1)
        await it.part.recall()
        assert await it.store.load(BOX) == PAIR
        assert await it.store.load("http://gone:11434") is None


async def test_what_cannot_be_stored_is_told_in_the_log_and_stored_later(
    sqlite_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with sqlite_place.opened() as database, keeping(database) as it:
        await it.part.recall()
        await database.write(Statement("DROP TABLE model_fits", {}))
        it.tell(a="1", b="2")
        it.fitting.remember({A, B})
        with caplog.at_level(logging.WARNING):
            await it.part.save()
        assert "what fits on backend box could not be stored" in caplog.text
        await database.write(Statement(STATEMENTS[0].format(integer="INTEGER", strict=" STRICT"), {}))
        await it.part.save()
        assert await it.store.load(BOX) == PAIR
