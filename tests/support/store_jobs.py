"""Jobs for the tests of the store: made, put there, and brought into a state."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from service.clock import Clock
from service.job import Claimed, Job, Line, NewJob, Outcome, Result, Segment, Status, new_job_id
from service.jobs.searching import Search
from service.queue.backlog import Backlog
from service.queue.capacity import QueueLimits
from service.queue.gauges import Gauges
from service.queue.key_limits import KeyLimits
from service.queue.order import Order
from service.store.database import Database, Settle, Statement
from service.store.job_filters import Filter
from service.store.jobs import JobStore, numbered

NOW = 1_700_000_000_000
"""Milliseconds since the epoch; the store has no clock of its own."""
LINE = Line("llama3.2:latest", "", 0)


def new_job(prompt: str = "Why is the sky blue?", **fields: Any) -> NewJob:
    """A job of the line LINE, unless fields say otherwise."""
    values = {
        "door": "prompts",
        "endpoint": "/api/generate",
        "model": "llama3.2",
        "request": '{"model":"llama3.2"}',
        **fields,
    }
    return NewJob(prompt=prompt, **values)


async def stored(store: JobStore, prompt: str = "Why is the sky blue?", now: int = NOW, **fields: Any) -> Job:
    """A job that waits."""
    return await inserted(store, new_job(prompt, **fields), new_job_id(now), now)


async def inserted(
    store: JobStore,
    new: NewJob,
    job_id: str,
    now: int = NOW,
    *,
    is_started: bool = False,
    also: Sequence[Statement] = (),
    settle: Settle | None = None,
) -> Job:
    """A job with this id, as it was stored."""
    job = store.new_job(new, job_id, now, is_started=is_started)
    return numbered(job, await store.insert(job, new, also=also, settle=settle))


async def result_of(store: JobStore, seq: int) -> Result | None:
    """All of a job's output."""
    found = await store.queries.result(seq)
    return await found.whole() if found is not None else None


async def prompt_of(store: JobStore, seq: int) -> str:
    """All of a job's prompt, "" when there is no such job."""
    found = await store.queries.prompt(seq)
    return await found.whole() if found is not None else ""


async def claimed(store: JobStore, now: int = NOW, **fields: Any) -> Job:
    """A job that runs: no other of its line may wait."""
    job = await stored(store, now=now, **fields)
    [one] = await store.claim(job.line, 1, now)
    assert one.job.seq == job.seq
    return one.job


async def finished(store: JobStore, now: int = NOW, status: Status = Status.COMPLETED, **fields: Any) -> Job:
    """A job that ended."""
    job = await store.finish(await claimed(store, now, **fields), Outcome(status, (Segment("text", "Hello"),)), now)
    assert job is not None
    return job


async def look(store: JobStore, job: Job) -> Job:
    """The job as it is stored."""
    standing = await store.queries.standing(job.id)
    assert standing is not None
    return standing.job


async def duplicated(database: Database, seq: int, copies: int) -> None:
    """Copies of a job's row, newer than it and without bodies."""
    columns = ", ".join(name for name in Job._fields if name not in ("seq", "id"))
    await database.write(
        Statement(
            f"""
            WITH RECURSIVE copies (number) AS (
                SELECT 1 UNION ALL SELECT number + 1 FROM copies WHERE number < {copies}
            )
            INSERT INTO jobs (id, {columns}) SELECT id || '-' || number, {columns} FROM copies, jobs WHERE seq = :seq
            """,
            {"seq": seq},
        )
    )
    for _ in range(copies):
        # What gives the numbers has not heard of them.
        database.next_number()


def seqs(jobs: list[Job] | list[Claimed]) -> list[int]:
    """Which jobs they are."""
    return [(one.job if isinstance(one, Claimed) else one).seq for one in jobs]


async def counted(store: JobStore) -> Gauges:
    """Gauges that begin from the rows."""
    gauges = Gauges()
    gauges.set(*await store.queries.gauges())
    return gauges


@pytest.fixture
def store(database: Database) -> JobStore:
    """The jobs of the process "one", on each kind of database in turn."""
    return JobStore(database, "one")


@pytest.fixture
def other(database: Database) -> JobStore:
    """The same jobs, as the process "two" has them."""
    return JobStore(database, "two")


def backlog_of(process: str) -> Backlog:
    """An empty backlog of a process with this name."""
    return Backlog(
        Order({}),
        KeyLimits(lambda _key_id: None),
        QueueLimits(1_000, 1 << 30, 1 << 20),
        Clock(),
        process=process,
        is_exclusive=False,
        work=asyncio.Event(),
    )


async def searched(
    store: JobStore, which: Filter, limit: int, offset: int, by: str = "", total: int | None = None
) -> tuple[list[int], int]:
    """The numbers of a page's jobs, found by walking the index of this condition, and how many there are."""
    page = await Search(store.queries, which, by, limit, offset).page(total)
    return [job.seq for job in page.jobs], page.total
