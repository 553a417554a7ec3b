"""A bounded queue that is shared: what is refused, in which words, and when to come again."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clock import Clock
from service.errors import LimitReachedError, QueueFullError
from service.job import Line, Status
from service.queue.capacity import Capacity, QueueLimits
from service.queue.gauges import Gauges
from tests.support.access import ADMIN, headers_of, service_with_keys
from tests.support.running import RunningService, service_in_process

LIMITS = QueueLimits(max_queued=10, max_queued_bytes=1000, max_output_bytes=0, max_queued_per_owner=4)
NOW = 1_700_000_000_000


class StillClock(Clock):
    def now_ms(self) -> int:
        return NOW


def room_with(jobs: int, size: int = 10, owner: str = "a", ended_a_second: float = 0) -> Capacity:
    gauges = Gauges()
    for _ in range(jobs):
        gauges.arrive(Line("m:latest", owner, 0), Status.QUEUED, size, is_ready=True)
    room = Capacity(gauges, StillClock())
    for number in range(int(60 * ended_a_second)):
        room.finished(NOW - 59_000 + int(number * 1000 / ended_a_second))
    return room


def seconds_until_room(room: Capacity, size: int = 10, owner: str = "b") -> float:
    with pytest.raises((QueueFullError, LimitReachedError)) as refusal:
        room.check(LIMITS, size, owner)
    assert isinstance(refusal.value, QueueFullError | LimitReachedError)
    return refusal.value.retry_after_seconds


def test_there_is_room() -> None:
    room_with(9).check(LIMITS, 10, "b")
    room_with(3).check(LIMITS, 970, "a")


def test_a_full_queue_has_room_when_the_next_job_ends() -> None:
    assert seconds_until_room(room_with(10, ended_a_second=0.1)) == pytest.approx(10, rel=0.2)
    assert seconds_until_room(room_with(10, ended_a_second=5)) == 1.0


def test_full_bytes_have_room_when_jobs_of_so_many_bytes_have_ended() -> None:
    full = room_with(8, size=120, ended_a_second=0.1)
    assert seconds_until_room(full, size=400) == pytest.approx(30, rel=0.2)


def test_an_owner_that_has_too_many_waits_for_its_own_turn() -> None:
    room = room_with(4, owner="b", ended_a_second=0.1)
    assert seconds_until_room(room) == pytest.approx(10, rel=0.2)
    room.check(LIMITS, 10, "a")


FAIR = QueueLimits(max_queued=100, max_queued_bytes=10_000, max_output_bytes=0)


class SharedQueue:
    """A queue of 100 jobs and 10,000 bytes, in fair shares."""

    def __init__(self) -> None:
        self.gauges = Gauges()
        self.room = Capacity(self.gauges, StillClock())

    def enter(self, owner: str, size: int = 1, *, is_admins: bool = False) -> None:
        self.room.check(FAIR, size, owner, is_admins=is_admins)
        self.gauges.arrive(Line("m:latest", owner, 0), Status.QUEUED, size, is_ready=False)

    def has_room_for(self, owner: str, size: int = 1, *, is_admins: bool = False) -> bool:
        try:
            self.room.check(FAIR, size, owner, is_admins=is_admins)
        except (QueueFullError, LimitReachedError):
            return False
        return True

    def leave(self, owner: str, size: int = 1) -> None:
        self.gauges.leave(Line("m:latest", owner, 0), Status.QUEUED, size, was_ready=False)

    def jobs_of(self, owner: str | None = None) -> int:
        return self.gauges.total(Status.QUEUED, None, owner)

    def fill(self, owner: str, size: int = 1) -> int:
        """How many jobs an owner gets in."""
        before = self.jobs_of(owner)
        while self.has_room_for(owner, size):
            self.enter(owner, size)
        return self.jobs_of(owner) - before


def test_one_owner_alone_gets_half_of_the_queue() -> None:
    queue = SharedQueue()
    assert queue.fill("a") == 50
    queue = SharedQueue()
    assert queue.fill("a", size=1_000) == 5


def test_each_who_comes_gets_half_of_what_is_left_until_the_last_tenth() -> None:
    queue = SharedQueue()
    assert [queue.fill(owner) for owner in "abcdef"] == [50, 25, 12, 3, 1, 1]
    with pytest.raises(LimitReachedError, match="the last tenth is kept for those of whom nothing waits; 3 of"):
        queue.enter("d")


def test_who_has_nothing_waiting_gets_in_until_the_queue_is_full_and_admins_always() -> None:
    queue = SharedQueue()
    queue.fill("a")
    queue.fill("b")
    for number in range(20):
        queue.enter(f"newcomer {number}")
    while queue.jobs_of() < FAIR.max_queued:
        queue.enter("admin", is_admins=True)
    for owner in ("another newcomer", "admin", "a"):
        with pytest.raises(QueueFullError):
            queue.enter(owner, is_admins=owner == "admin")


def test_a_share_grows_when_others_leave() -> None:
    queue = SharedQueue()
    queue.fill("a")
    queue.fill("b")
    assert not queue.has_room_for("b")
    for _ in range(20):
        queue.leave("a")
    assert queue.fill("b") == 10


OWNERS = [f"owner {number}" for number in range(20)]
STEPS = st.lists(
    st.tuples(st.sampled_from(OWNERS), st.sampled_from([1, 1, 1, 40, 900]), st.integers(-3, 12)), max_size=80
)


@given(steps=STEPS)
def test_twenty_owners_fill_the_queue_in_any_order(steps: list[tuple[str, int, int]]) -> None:
    queue = SharedQueue()
    waiting: dict[str, list[int]] = {owner: [] for owner in OWNERS}
    for owner, size, times in steps:
        for _ in range(times):
            if queue.has_room_for(owner, size):
                queue.enter(owner, size)
                waiting[owner].append(size)
                others = sum(len(sizes) for one, sizes in waiting.items() if one != owner)
                assert len(waiting[owner]) == 1 or len(waiting[owner]) <= (FAIR.max_queued - others) / 2
        for _ in range(min(-times, len(waiting[owner]))):
            queue.leave(owner, waiting[owner].pop())
        jobs = sum(map(len, waiting.values()))
        taken = sum(map(sum, waiting.values()))
        for one in OWNERS:
            others = jobs - len(waiting[one])
            fits = jobs < FAIR.max_queued and taken < FAIR.max_queued_bytes
            # Who has nothing waiting, and an admin, always gets in; whoever is within its share, until the last tenth.
            assert queue.has_room_for(one, is_admins=True) == fits
            if not waiting[one]:
                assert queue.has_room_for(one) == fits
        assert queue.gauges.queued_bytes == taken
        assert queue.gauges.queued_owners == sum(map(bool, waiting.values()))


def test_when_nothing_has_ended_lately_nobody_is_sent_round_every_second() -> None:
    assert seconds_until_room(room_with(10)) == 30.0


async def refusal(service: RunningService, **fields: Any) -> tuple[int, int, str]:
    async with service.session.post("/api/v1/prompt", json={"prompt": "one more", **fields}) as response:
        return response.status, int(response.headers["Retry-After"]), (await response.json())["error"]


async def busy(service: RunningService) -> None:
    service.stall(prompt="first")
    await service.until(await service.submit("first"), "processing")
    await service.submit("second")


async def test_a_full_queue_refuses_with_503_and_a_time() -> None:
    async with service_in_process({"queue.max_size": 1}, seats=1) as service:
        await busy(service)
        status, seconds, text = await refusal(service)
        assert (status, seconds) == (503, 30)
        assert "the queue is full: 1 jobs wait" in text


async def test_full_bytes_refuse_with_503() -> None:
    async with service_in_process({"queue.max_bytes": 1 << 20, "queue.max_size_per_owner": 0}, seats=1) as service:
        await busy(service)
        await service.submit("x" * 600_000)
        status, _, text = await refusal(service, prompt="x" * 600_000)
        assert status == 503
        assert "1048576 bytes" in text


async def test_an_owners_own_limit_is_429_and_has_nothing_stored() -> None:
    async with service_in_process({"queue.max_size_per_owner": 1}, seats=1) as service:
        await busy(service)
        status, seconds, text = await refusal(service)
        assert (status, seconds) == (429, 30)
        assert "1 of your jobs wait already" in text
        _, page = await service.call("GET", "/api/v1/prompts")
        assert page["total"] == 2


async def submitted(service: RunningService, headers: dict[str, str], prompt: str = "x") -> str:
    status, answer = await service.call("POST", "/api/v1/prompt", {"prompt": prompt}, headers=headers)
    assert status == 202, answer
    return str(answer["id"])


async def test_who_has_its_share_waiting_is_told_so_with_429_while_admins_and_others_get_in() -> None:
    async with service_with_keys({"queue.max_size": 4}, seats=1) as service:
        user, other = await headers_of(service), await headers_of(service)
        service.stall(prompt="first")
        await service.until(await submitted(service, user, "first"), "processing", headers=ADMIN)
        for _ in range(2):
            await submitted(service, user)
        async with service.session.post("/api/v1/prompt", json={"prompt": "x"}, headers=user) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "30")
            assert "your share of the queue is full: 2 jobs of yours wait" in (await response.json())["error"]
        await submitted(service, ADMIN)
        await submitted(service, other)
        async with service.session.post("/api/v1/prompt", json={"prompt": "x"}, headers=ADMIN) as response:
            assert response.status == 503
            assert "the queue is full: 4 jobs wait" in (await response.json())["error"]


async def test_a_job_cannot_wait_for_a_moment_that_is_too_far_away() -> None:
    async with service_in_process({"queue.max_delay_days": 2}, seats=1) as service:
        for far in ("2120-01-01T00:00:00Z", time.time() + 2 * 86_400 + 60):
            status, problem = await service.call("POST", "/api/v1/prompt", {"prompt": "later", "not_before": far})
            assert (status, problem["field"]) == (400, "not_before")
            assert "at most 2 days ahead (queue.max_delay_days)" in problem["error"]
        status, _ = await service.call("POST", "/api/v1/prompt", {"prompt": "x", "not_before": time.time() + 86_400})
        assert status == 202
