"""The gauges say what a count of the rows would say, whatever has happened."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from service.job import Job, Line, Outcome, Status
from service.queue.gauges import Gauges
from service.store.database import Database
from service.store.jobs import JobStore
from tests.support.store_jobs import LINE, NOW, claimed, counted, finished, stored

MODELS = ("llama3.2", "mistral")
OWNERS = ("", "a")
PRIORITIES = (0, 1)
STEPS = 250


async def test_gauges_begin_from_one_count_of_the_rows(store: JobStore) -> None:
    job = await stored(store)
    await stored(store)
    await stored(store, not_before=NOW + 1)
    await stored(store, owner="a")
    await claimed(store, owner="b")
    await finished(store, owner="b")
    gauges = await counted(store)
    assert gauges.total() == 6
    assert gauges.total("queued") == 4
    assert gauges.total("queued", owner="") == 3
    assert gauges.total(model="llama3.2:latest", owner="b") == 2
    assert gauges.total("failed") == gauges.total(owner="nobody") == 0
    assert gauges.ready(LINE) == 2
    assert gauges.waiting == {LINE.runner: {"": {0: 2}, "a": {0: 1}}}
    assert gauges.queued_bytes == 4 * job.size


async def test_an_empty_database_has_empty_gauges(store: JobStore) -> None:
    gauges = await counted(store)
    assert gauges.total() == gauges.queued_bytes == 0
    assert gauges.waiting == {}


def test_a_line_that_was_counted_down_twice_owes_one() -> None:
    # A pick and a cancel may both have taken the same job away; one of them is given back.
    gauges = Gauges()
    gauges.add_ready(LINE, 1)
    gauges.add_ready(LINE, -1)
    gauges.add_ready(LINE, -1)
    assert gauges.waiting == {}
    gauges.add_ready(LINE, 1)
    assert gauges.ready(LINE) == 0
    assert gauges.waiting == {}
    gauges.add_ready(LINE, 1)
    assert gauges.waiting == {LINE.runner: {"": {0: 1}}}


@pytest.mark.parametrize("seed", range(4))
async def test_gauges_that_are_moved_with_every_change_equal_a_recount(database: Database, seed: int) -> None:
    walk = _Walk(JobStore(database, "one"), random.Random(seed))
    for step in range(STEPS):
        await walk.step(NOW + step)
        if step % 50 == 49:
            assert _shown(walk.gauges) == _shown(await counted(walk.store))
            assert walk.gauges.queued_bytes == (await counted(walk.store)).queued_bytes


def _shown(gauges: Gauges) -> dict[str, object]:
    statuses: Iterable[str | None] = (None, *Status)
    totals = {
        f"{status} {model} {owner}": gauges.total(status, model, owner)
        for status in statuses
        for model in (None, *(f"{name}:latest" for name in MODELS))
        for owner in (None, *OWNERS)
    }
    return {**totals, "waiting": {model: dict(owners) for model, owners in gauges.waiting.items()}}


class _Walk:
    """Does to jobs what may be done to them, at random, and tells the gauges as the core does."""

    def __init__(self, store: JobStore, chance: random.Random) -> None:
        self.store = store
        self.gauges = Gauges()
        self._chance = chance
        self._jobs: dict[int, Job] = {}

    async def step(self, now: int) -> None:
        steps = [self._submit, self._submit, self._claim, self._claim, self._finish, self._put_back, self._cancel]
        steps += [self._promote, self._expire, self._rescue, self._prune]
        await self._chance.choice(steps)(now)

    async def _submit(self, now: int) -> None:
        job = await stored(
            self.store,
            now=now,
            model=self._chance.choice(MODELS),
            owner=self._chance.choice(OWNERS),
            priority=self._chance.choice(PRIORITIES),
            request="x" * self._chance.randint(2, 50),
            not_before=self._chance.choice((None, None, now + 9)),
            deadline=self._chance.choice((None, now + 30)),
            on_disconnect=self._chance.choice((None, "cancel", "finish")),
        )
        self._jobs[job.seq] = job
        self.gauges.arrive(job.line, job.status, job.size, is_ready=job.not_before is None)

    async def _claim(self, now: int) -> None:
        line = Line(
            f"{self._chance.choice(MODELS)}:latest", self._chance.choice(OWNERS), self._chance.choice(PRIORITIES)
        )
        for one in await self.store.claim(line, self._chance.randint(1, 3), now):
            self._move(one.job)

    async def _finish(self, now: int) -> None:
        for job in self._some(Status.PROCESSING):
            self._move(
                await self.store.finish(job, Outcome(self._chance.choice((Status.COMPLETED, Status.FAILED))), now)
            )

    async def _put_back(self, now: int) -> None:
        for job in self._some(Status.PROCESSING):
            self._move(await self.store.put_back(job, now, not_before=self._chance.choice((None, now + 5))))

    async def _cancel(self, now: int) -> None:
        for job in self._some(*Status):
            self._move(await self.store.cancel(job.id, now))

    async def _promote(self, now: int) -> None:
        for job in await self.store.promote(now):
            self._move(job)

    async def _expire(self, now: int) -> None:
        for job in await self.store.expire(now):
            self._move(job)

    async def _rescue(self, now: int) -> None:
        if self._chance.random() < 0.2:
            for job, _ in await self.store.rescue("one", now):
                self._move(job)

    async def _prune(self, now: int) -> None:
        for gauge in await self.store.prune(now - 60, most=3):
            self.gauges.leave(gauge.line, gauge.status, gauge.size, was_ready=False)

    def _some(self, *statuses: Status) -> list[Job]:
        jobs = [job for job in self._jobs.values() if job.status in statuses]
        return self._chance.sample(jobs, min(len(jobs), 1))

    def _move(self, job: Job | None) -> None:
        if job is None:
            return
        before = self._jobs[job.seq]
        self._jobs[job.seq] = job
        ready = _is_ready(job) - _is_ready(before)
        if job.status == before.status:
            self.gauges.add_ready(job.line, ready)
        else:
            self.gauges.move(job.line, before.status, job.status, job.size, ready=ready)


def _is_ready(job: Job) -> int:
    return int(job.status == Status.QUEUED and job.not_before is None)
