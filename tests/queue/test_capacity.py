"""A bounded queue: what is refused, in which words, and when to come again."""

from __future__ import annotations

from typing import Any

import pytest

from service.clock import Clock
from service.errors import LimitReachedError, QueueFullError
from service.job import Line, Status
from service.queue.capacity import Capacity, QueueLimits
from service.queue.gauges import Gauges
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
    async with service_in_process({"queue.max_bytes": 1 << 20}, seats=1) as service:
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
