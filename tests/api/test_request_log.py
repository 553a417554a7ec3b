"""The log of requests and the statistics that are drawn from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from service.clock import Clock
from service.errors import CannotStoreError
from service.keys.keyring import Keyring
from service.live.hub import Hub, JobChanged
from service.maintenance.loops import prune_regularly
from service.request_log import RequestLog
from service.store.database import Database
from service.store.jobs import JobStore
from service.store.keys import KeyStore
from service.store.request_log import LogRow, RequestLogStore, Scope, Sums
from tests.support.log_rows import written
from tests.support.running import PATIENCE_SECONDS
from tests.support.store_jobs import NOW, claimed


def row(**fields: Any) -> LogRow:
    """A request that was answered well."""
    values: dict[str, Any] = {
        "at": NOW, "key_id": "k1", "owner": "key:k1", "endpoint": "/api/chat", "method": "POST", "status_code": 200,
        "model": "llama3.2:latest", "job_id": None, "job_status": None, "prompt_tokens": None,
        "completion_tokens": None, "response_ms": 10, "queue_ms": None, **fields,
    }  # fmt: skip
    return LogRow(**values)


@pytest.fixture
def log(database: Database) -> RequestLogStore:
    return RequestLogStore(database)


async def usage_of(store: RequestLogStore, database: Database) -> RequestLog:
    return RequestLog(store, await Keyring.open(KeyStore(database), Clock()), Clock())


async def appended(log: RequestLogStore, *rows: LogRow) -> None:
    await log.append(rows)


# The store


async def test_rows_are_stored_as_they_are_however_many_come_together(log: RequestLogStore, database: Database) -> None:
    rows = [row(at=NOW + number, owner=f"{number}") for number in range(123)]
    awkward = row(owner="\ud800\0wörter", model="a\0b", key_id=None, job_id="j", queue_ms=1)
    await appended(log, *rows, awkward)
    *same, last = await written(database)
    assert same == rows
    assert last == awkward._replace(owner="��wörter", model="a�b")


async def test_a_job_that_ends_later_completes_its_row(
    log: RequestLogStore, database: Database, store: JobStore
) -> None:
    running = await claimed(store)
    await appended(log, row(job_id=running.id), row(job_id="another"))
    ended = running._replace(status="failed", prompt_tokens=3, completion_tokens=4, finished_at=NOW)
    await log.end([ended])
    first, second = await written(database)
    assert (first.job_status, first.prompt_tokens, first.completion_tokens, first.queue_ms) == ("failed", 3, 4, 0)
    assert second == row(job_id="another")


async def test_sums_are_drawn_by_key_model_and_day(log: RequestLogStore) -> None:
    day = 86_400_000
    await appended(
        log,
        row(prompt_tokens=1, completion_tokens=10, job_status="completed"),
        row(at=NOW + day, prompt_tokens=2, completion_tokens=20),
        row(status_code=429, model=None),
        row(job_status="failed", model="mistral:latest"),
        row(job_status="cancelled", model="mistral:latest"),
        row(key_id=None, owner="192.0.2.1", prompt_tokens=4),
        row(at=NOW - 1, prompt_tokens=1000),
    )
    groups = {(one.key_id, one.model, one.day): one.sums for one in await log.groups(Scope(), NOW)}
    today = NOW // day
    assert groups == {
        ("k1", "llama3.2:latest", today): Sums(1, 1, 1, 10),
        ("k1", "llama3.2:latest", today + 1): Sums(1, 1, 2, 20),
        ("k1", None, today): Sums(1, 0, 0, 0),
        ("k1", "mistral:latest", today): Sums(2, 0, 0, 0),
        (None, "llama3.2:latest", today): Sums(1, 1, 4, 0),
    }
    assert sum(one.sums.requests for one in await log.groups(Scope(key_id="k1"), NOW)) == 5
    assert sum(one.sums.requests for one in await log.groups(Scope(owner="192.0.2.1"), NOW)) == 1
    assert await log.owners(Scope(), NOW) == [("key:k1", Sums(5, 2, 3, 30)), ("192.0.2.1", Sums(1, 1, 4, 0))]


async def test_percentiles_are_response_times_that_were_measured(log: RequestLogStore, database: Database) -> None:
    usage = await usage_of(log, database)
    assert (await usage.statistics(Scope())).response_ms == {}
    await appended(log, *(row(response_ms=number) for number in range(200, 0, -1)))
    assert (await usage.statistics(Scope())).response_ms == {"p50": 100, "p95": 190, "p99": 198}
    assert (await usage.statistics(Scope(key_id="nobody"))).response_ms == {}


async def test_old_rows_are_pruned_in_batches(log: RequestLogStore, database: Database) -> None:
    await appended(log, *(row(at=NOW + number) for number in range(10)))
    assert [await log.prune(NOW + 5, most=3) for _ in range(3)] == [3, 2, 0]
    assert [one.at for one in await written(database)] == [NOW + number for number in range(5, 10)]


async def test_pruning_goes_by_the_configured_days(log: RequestLogStore, database: Database) -> None:
    usage, clock = await usage_of(log, database), Clock()
    now, day = clock.now_ms(), 86_400_000
    await appended(log, row(at=now - 91 * day), row(at=now - 89 * day))
    pruned = asyncio.Event()

    async def prune(before: int) -> int:
        count = await usage.prune(before)
        if not count:
            pruned.set()
        return count

    task = asyncio.create_task(prune_regularly(prune, clock, 90))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await pruned.wait()
    task.cancel()
    assert [one.at for one in await written(database)] == [now - 89 * day]


# The log in memory


class FailingStore(RequestLogStore):
    """A log whose database takes nothing for a while."""

    is_full = True

    def append(self, rows: Sequence[LogRow]) -> Awaitable[object]:
        if not self.is_full:
            return super().append(rows)
        refused: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        refused.set_exception(CannotStoreError("the disk is full"))
        return refused


async def test_what_cannot_be_written_waits_and_is_written_later_in_its_order(
    database: Database, store: JobStore
) -> None:
    failing = FailingStore(database)
    usage = await usage_of(failing, database)
    running = await claimed(store)
    usage.record(row(job_id=running.id))
    with pytest.raises(CannotStoreError):
        await usage.flush()
    usage.record(row(owner="second"))
    hub = Hub()
    async with usage.listening(hub):
        hub.publish(running._replace(status="completed", prompt_tokens=7, finished_at=NOW))
        failing.is_full = False
    first, second = await written(database)
    assert (first.job_id, first.job_status, first.prompt_tokens) == (running.id, "completed", 7)
    assert second.owner == "second"


@pytest.mark.parametrize("ends", ["before its request is answered", "while its row is in memory", "later"])
async def test_a_row_learns_how_its_job_has_ended(
    log: RequestLogStore, database: Database, store: JobStore, ends: str
) -> None:
    usage, job = await usage_of(log, database), await claimed(store)
    ended = JobChanged(job._replace(status="completed", prompt_tokens=7))
    usage.expect(job)
    await usage.flush()
    if ends == "before its request is answered":
        usage.receive(ended)
        await usage.flush()
    usage.record(row(job_id=job.id))
    if ends == "later":
        await usage.flush()
    if ends != "before its request is answered":
        usage.receive(ended)
    await usage.flush()
    [only] = await written(database)
    assert (only.job_status, only.prompt_tokens) == ("completed", 7)


async def test_a_row_that_the_database_refuses_costs_no_other(log: RequestLogStore, database: Database) -> None:
    usage = await usage_of(log, database)
    usage.record(row(owner="first"))
    usage.record(row(response_ms=None))
    usage.record(row(owner="last"))
    await usage.flush()
    assert [one.owner for one in await written(database)] == ["first", "last"]


async def test_what_waits_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.request_log._MOST_WAITING", 3)
    failing = FailingStore(database)
    usage = await usage_of(failing, database)
    for number in range(10):
        usage.record(row(owner=f"{number}"))
    with pytest.raises(CannotStoreError):
        await usage.flush()
    for number in range(10, 20):
        usage.record(row(owner=f"{number}"))
    failing.is_full = False
    await usage.flush()
    assert len(await written(database)) == 3


async def test_a_request_costs_no_write_of_its_own(log: RequestLogStore, database: Database) -> None:
    usage = await usage_of(log, database)
    for number in range(100):
        usage.record(row(owner=f"{number}"))
    assert await written(database) == []
    await usage.flush()
    assert len(await written(database)) == 100
