"""When a waiting job is thought to begin, and where that is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from service.backend.calls import Call
from service.backend.http.connections import Connections
from service.backend.models import InstalledModel, Listed
from service.backend.pool import Backend, Pool, build_backend
from service.clock import Clock
from service.config import BackendConfig, Config, ModelConfig, QueueConfig
from service.job import Line
from service.queue import ModelRow, Order
from service.queue.backlog import Backlog
from service.queue.capacity import QueueLimits
from service.queue.key_limits import KeyLimits
from service.scheduling.estimates import Estimates
from service.scheduling.scheduler import Scheduler
from service.simulated import SimulatedModel, SimulatedSettings
from tests.support.backends import until_answering
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

START = 1_700_000_000_000
MEAN_MS = 10_000.0
LOAD_MS = 8_000


class SettableClock(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.now = START

    def now_ms(self) -> int:
        return self.now


class Stage(NamedTuple):
    pool: Pool
    backlog: Backlog
    scheduler: Scheduler
    clock: SettableClock
    estimates: Estimates

    @property
    def backend(self) -> Backend:
        return next(iter(self.pool))

    def start(self, runner: str, ahead: int = 0) -> float | None:
        return self.estimates.start_seconds(runner, ahead)

    def run(self, runner: str, jobs: int = 1, load_ms: int = 0, backend: Backend | None = None) -> None:
        """Have so many jobs running, of which the first has got its first byte after a load."""
        for number in range(jobs):
            self.pool.take(backend or self.backend, runner, "owner")
            if number == 0:
                self.clock.now += load_ms
                self.pool.answered(backend or self.backend, runner)

    def send(self, runner: str) -> None:
        """Have the call of a job running that has a seat."""
        self.backend.placement.holds.calls.begin(Call(runner, self.clock.now, is_streamed=True), runner)

    def wait(self, **jobs: int) -> None:
        """Have so many jobs of each model waiting."""
        for model, count in jobs.items():
            for _ in range(count):
                self.backlog.arrive(Line(f"{model}:latest", "owner", 0), 0, self.clock.now, is_ready=True)

    def end(self, runner: str, jobs: int = 1) -> None:
        for _ in range(jobs):
            self.pool.free(self.backend, runner)


A, B, C = "a:latest", "b:latest", "c:latest"


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """One backend with two seats and three models of which one fits, and another that is away."""
    config = Config(
        backends=(BackendConfig(name="one", concurrency=2), BackendConfig(name="two", concurrency=1)),
        models={"c": ModelConfig(parallel=1)},
        queue=QueueConfig(max_swap_wait_seconds=30),
    )
    clock, work = SettableClock(), asyncio.Event()
    async with Connections() as connections:
        members = [build_backend(one, connections, config, clock) for one in config.backends]
        pool = Pool(members, config, clock, work)
        for backend in members:
            backend.note_installed(tuple(InstalledModel(name, "", 0, {}) for name in (A, B, C)))
        members[0].is_answering = True
        order = Order({0: 0.0})
        order.restore([ModelRow(name, 0.0, MEAN_MS, 8) for name in (A, B, C)], [])
        backlog = Backlog(
            order,
            KeyLimits(lambda _key_id: None),
            QueueLimits(10_000, 1 << 30, 1 << 20),
            clock,
            process="one",
            is_exclusive=True,
            work=work,
        )
        scheduler = Scheduler(backlog, pool, clock)
        yield Stage(pool, backlog, scheduler, clock, Estimates(backlog, pool, clock))


async def test_a_job_that_finds_a_free_seat_begins_at_once(stage: Stage) -> None:
    stage.run(A)
    assert stage.start(A) == 0.0


async def test_a_queue_moves_by_its_seats_and_the_learned_mean(stage: Stage) -> None:
    stage.run(A, 2)
    assert stage.start(A, 0) == stage.start(A, 1) == 10.0
    assert stage.start(A, 2) == 20.0
    assert stage.start(A, 9) == 50.0


async def test_what_is_left_of_the_answers_that_run_counts_and_the_seat_that_is_free_first(stage: Stage) -> None:
    stage.run(A, 2)
    stage.send(A)
    stage.clock.now += 4_000
    stage.send(A)
    stage.clock.now += 1_000
    assert [stage.start(A, ahead) for ahead in range(4)] == [5.0, 9.0, 15.0, 19.0]
    stage.clock.now += 7_000
    assert [stage.start(A, ahead) for ahead in range(3)] == [0.0, 2.0, 10.0]


async def test_a_seat_with_a_long_answer_is_passed_over_by_those_who_find_another(stage: Stage) -> None:
    stage.backlog.order.restore([ModelRow(B, 0.0, 100_000.0, 8)], [])
    stage.run(A)
    stage.run(B)
    stage.send(A)
    stage.send(B)
    stage.clock.now += 5_000
    assert [stage.start(A, ahead) for ahead in (0, 1, 8, 9, 10, 11)] == [5.0, 15.0, 85.0, 95.0, 95.0, 105.0]


async def test_only_the_seats_that_a_model_may_have_count(stage: Stage) -> None:
    stage.run(C)
    assert stage.start(C, 0) == 10.0
    assert stage.start(C, 3) == 40.0


async def test_nobody_serves_the_model(stage: Stage) -> None:
    stage.backend.is_drained = True
    assert stage.start(A) is None
    stage.backend.is_drained = False
    assert stage.start("unknown:latest") is None
    assert stage.start(A) is not None


async def test_two_backends_that_have_it_share_the_queue(stage: Stage) -> None:
    second = list(stage.pool)[1]
    second.is_answering = True
    stage.run(A, 2)
    stage.run(A, 1, backend=second)
    assert stage.start(A, 2) == 10.0


async def test_a_load_that_is_under_way_is_waited_for(stage: Stage) -> None:
    stage.run(A, load_ms=LOAD_MS)
    stage.end(A)
    stage.backend.placement.listed(map(Listed, ()), stage.clock.now)
    stage.pool.take(stage.backend, A, "owner")
    stage.clock.now += LOAD_MS // 4
    assert stage.start(A) == LOAD_MS * 0.75 / 1000


async def test_the_swap_to_come_is_part_of_it(stage: Stage) -> None:
    stage.run(A, load_ms=LOAD_MS)
    stage.wait(a=1, b=1)
    # One job of A waits and one runs, then B is loaded, which is thought to take as long as A's load did.
    assert stage.start(B) == (MEAN_MS / 2 + MEAN_MS + LOAD_MS) / 1000


async def test_a_model_that_waits_for_anothers_answer_is_told_what_is_left_of_it(stage: Stage) -> None:
    stage.run(A, load_ms=LOAD_MS)
    stage.send(A)
    stage.clock.now += 6_000
    assert stage.start(B) == (MEAN_MS - 6_000 + LOAD_MS) / 1000
    stage.clock.now += 6_000
    assert stage.start(B) == LOAD_MS / 1000


async def test_so_are_all_while_sends_are_held_for_its_load(stage: Stage) -> None:
    stage.run(A, load_ms=LOAD_MS)
    stage.send(A)
    stage.clock.now += 6_000
    stage.pool.take(stage.backend, B, "owner")
    assert stage.backend.placement.holds.hold is not None
    held_ms = MEAN_MS - 6_000 + LOAD_MS
    assert stage.start(A) == stage.start(B) == held_ms / 1000
    assert stage.start(A, 2) == (held_ms + MEAN_MS) / 1000
    assert stage.start(C) == (held_ms + LOAD_MS) / 1000
    stage.clock.now += 2_000
    assert stage.start(A) == (held_ms - 2_000) / 1000


async def test_a_model_that_is_overdue_does_not_wait_for_the_whole_queue_of_another(stage: Stage) -> None:
    stage.run(A, load_ms=LOAD_MS)
    stage.wait(a=1000, b=1)
    stage.clock.now += 20_000
    assert stage.start(B) == (10_000 + MEAN_MS + LOAD_MS) / 1000


async def test_models_that_have_waited_longer_come_first(stage: Stage) -> None:
    stage.run(A, load_ms=LOAD_MS)
    stage.end(A)
    stage.wait(c=1)
    stage.clock.now += 1
    stage.wait(b=1)
    alone = LOAD_MS / 1000
    assert stage.start(C) == alone
    assert stage.start(B) == pytest.approx(alone + (LOAD_MS + MEAN_MS / 2) / 1000, abs=3)


# Where it is told


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    models = (SimulatedModel("llama3.2"),)
    async with service_in_process(settings=SimulatedSettings(models=models), seats=1) as running:
        await until_answering(running, 1)
        yield running


async def queue_of_three(service: RunningService) -> list[str]:
    """One that runs, and two that wait."""
    service.stall()
    running = await service.submit("runs")
    await service.until(running, "processing")
    await service.ollama.observations.until(lambda seen: seen.stalled == 1)
    return [await service.submit("first"), await service.submit("second")]


async def test_status_list_and_headers_tell_position_and_estimate(service: RunningService) -> None:
    _, second = await queue_of_three(service)
    async with service.session.get(f"/api/v1/prompt/{second}/status") as response:
        status, headers = await response.json(), response.headers
    _, page = await service.call("GET", "/api/v1/prompts")
    places = [(row["prompt"], row.get("position"), row.get("estimated_start_seconds")) for row in page["prompts"]]
    assert (status["position"], headers["X-Queue-Position"]) == (2, "2")
    assert float(headers["X-Estimated-Start-Seconds"]) == status["estimated_start_seconds"] > 0
    assert [place[:2] for place in places] == [("second", 2), ("first", 1), ("runs", None)]
    assert places[2][2] is None
    assert places[0][2] > places[1][2]


async def test_the_answer_to_a_submission_tells_it_in_body_and_headers(service: RunningService) -> None:
    await queue_of_three(service)
    async with service.session.post("/api/v1/prompt", json={"prompt": "third"}) as response:
        answer = await response.json()
    assert (answer["position"], response.headers["X-Queue-Position"]) == (3, "3")
    assert float(response.headers["X-Estimated-Start-Seconds"]) == answer["estimated_start_seconds"] > 0


async def test_a_running_job_has_no_place(service: RunningService) -> None:
    service.stall()
    job_id = await service.submit("runs")
    await service.until(job_id, "processing")
    async with service.session.get(f"/api/v1/prompt/{job_id}/status") as response:
        assert not {"X-Queue-Position", "X-Estimated-Start-Seconds"} & set(response.headers)


async def test_the_websocket_tells_places_in_its_snapshot_in_news_and_as_they_move(service: RunningService) -> None:
    async with service.session.ws_connect("/api/v1/ws") as websocket:
        first, second = await queue_of_three(service)
        await websocket.send_json({"type": "subscribe", "channel": "jobs"})
        snapshot = await receive(websocket, "subscribed")
        assert [row.get("position") for row in snapshot["jobs"]] == [2, 1, None]
        third = await service.submit("third")
        news = await receive(websocket, "job")
        assert (news["id"], news["position"]) == (third, 3)
        assert news["estimated_start_seconds"] > 0
        await websocket.send_json({"type": "subscribe", "channel": "job", "id": second})
        followed = await receive(websocket, "subscribed")
        assert followed["job"]["position"] == 2
        await service.call("DELETE", f"/api/v1/prompt/{first}")
        while (moved := await receive(websocket, "job"))["id"] != second:
            pass
        assert moved["position"] == 1
        assert moved["estimated_start_seconds"] < followed["job"]["estimated_start_seconds"]


async def receive(websocket: Any, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            message = dict(await websocket.receive_json())
            if message["type"] == kind:
                return message


async def test_when_the_last_who_waited_has_gone_nobody_is_taken_for_waiting(service: RunningService) -> None:
    waits = service.jobs.backlog.waits
    stalled = service.stall()
    await service.submit()
    await service.ollama.observations.until(lambda seen: seen.stalled == 1)
    waiting = await service.submit()
    stalled.release()
    await service.until(waiting, "completed")
    await service.look(waiting, lambda _job: not waits.models)
