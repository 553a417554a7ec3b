"""A job's events as server-sent events: live, resumed from any position, never two attempts spliced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest

from service.live.hub import job_channel
from service.simulated import Fault, FaultKind, SimulatedSettings
from tests.support.running import MODELS, PATIENCE_SECONDS, RunningService, service_in_process

LONG = SimulatedSettings(models=MODELS, parallel=8, answer_text="wörter 😀 " * 15_000)


class Event(NamedTuple):
    """One event as it came; a comment has the name ``:``."""

    name: str
    id: str | None
    data: Any


class Listener:
    """Reads events as they come."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events()

    async def _events(self) -> AsyncIterator[Event]:
        buffer = b""
        async for data in self._response.content.iter_any():
            buffer += data
            while b"\n\n" in buffer:
                block, buffer = buffer.split(b"\n\n", 1)
                yield self._event(block.decode())
        assert buffer == b""

    @staticmethod
    def _event(block: str) -> Event:
        if block.startswith(":"):
            return Event(":", None, block)
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        return Event(fields["event"], fields.get("id"), json.loads(fields["data"]))

    async def until(self, name: str) -> list[Event]:
        """All events up to the first of this name."""
        seen = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for event in self:
                seen.append(event)
                if event.name == name:
                    return seen
        raise AssertionError(f"no {name} among {[event.name for event in seen]}")


@asynccontextmanager
async def following(
    service: RunningService, job_id: str, position: str | None = None, query: dict[str, str] | None = None
) -> AsyncIterator[Listener]:
    headers = {"Last-Event-ID": position} if position else {}
    path = f"/api/v1/prompt/{job_id}/stream"
    async with service.session.get(path, headers=headers, params=query) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store"
        yield Listener(response)


async def all_events(service: RunningService, job_id: str, position: str | None = None) -> list[Event]:
    async with following(service, job_id, position) as listener:
        return [event async for event in listener if event.name != ":"]


def text_of(events: list[Event]) -> str:
    return "".join(event.data["data"] for event in events if event.name == "output" and event.data["kind"] == "text")


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process(seats=1) as running:
        yield running


async def test_the_stream_of_a_running_job_ends_after_done_with_the_whole_answer(service: RunningService) -> None:
    stalled = service.stall()
    job_id = await service.submit()
    async with following(service, job_id) as listener:
        seen = await listener.until("output")
        stalled.release()
        seen += [event async for event in listener]
    names = [event.name for event in seen]
    assert set(names) <= {"status", "output", "done"}
    assert names[0] == "status"
    assert names[-2:] == ["status", "done"]
    assert seen[-1].data == {"id": job_id, "status": "completed", "final": True, "done_reason": "stop"}
    _, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
    assert text_of(seen) == result["result"]


async def test_every_position_of_a_finished_job_gives_exactly_the_rest(service: RunningService) -> None:
    job_id = await service.finished("hello", model="thinker")
    whole = [event for event in await all_events(service, job_id) if event.name == "output"]
    joined = "".join(event.data["data"] for event in whole)
    assert {event.data["kind"] for event in whole} == {"thinking", "text"}
    for offset in range(0, len(joined) + 1, 7):
        events = await all_events(service, job_id, f"1.{offset}")
        assert "".join(event.data["data"] for event in events if event.name == "output") == joined[offset:]
        assert [event.name for event in events if event.name != "output"] == ["status", "done"]


async def test_a_listener_that_leaves_and_comes_back_misses_nothing_and_hears_nothing_twice() -> None:
    async with service_in_process(settings=LONG) as service:
        stalled = service.stall(after_tokens=10)
        job_id = await service.submit()
        async with following(service, job_id) as listener:
            first = await listener.until("output")
        stalled.release()
        position = first[-1].id
        second: list[Event] = []
        async with following(service, job_id, position) as listener:
            async for event in listener:
                second.append(event)
                if event.name == "output" and len(text_of(second)) > 20_000:
                    break
        assert second[-1].id is not None
        third = await all_events(service, job_id, second[-1].id)
        assert text_of(first) + text_of(second) + text_of(third) == LONG.answer_text
        assert "restart" not in {event.name for event in (*first, *second, *third)}


@pytest.mark.parametrize("name", ["from", "last_event_id"])
async def test_a_position_may_stand_in_the_address_and_the_header_wins(service: RunningService, name: str) -> None:
    job_id = await service.finished()
    whole = text_of(await all_events(service, job_id))
    async with following(service, job_id, query={name: "1.5"}) as listener:
        assert text_of([event async for event in listener]) == whole[5:]
    async with following(service, job_id, "1.9", query={name: "1.5"}) as listener:
        assert text_of([event async for event in listener]) == whole[9:]


async def test_a_new_attempt_is_announced_and_never_spliced_to_the_old_one() -> None:
    async with service_in_process({"retry.initial_seconds": 0.01}) as service:
        broken = Fault(kind=FaultKind.HANG_UP, endpoint="/api/generate", after_tokens=5, times=1)
        stalled = service.stall(after_tokens=3, times=1)
        service.ollama.arm(broken)
        job_id = await service.submit()
        async with following(service, job_id) as listener:
            seen = await listener.until("output")
            old_position = seen[-1].id
            stalled.release()
            seen += [event async for event in listener]
        restart = [event.name for event in seen].index("restart")
        assert seen[restart].data == {"id": job_id, "attempt": 2}
        assert seen[restart].id == "2.0"
        assert {event.data["attempt"] for event in seen[restart:] if event.name == "output"} == {2}
        _, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
        assert text_of(seen[restart:]) == result["result"]
        assert result["result"].startswith(text_of(seen[:restart]))
        again = await all_events(service, job_id, old_position)
        assert [event.name for event in again][:2] == ["status", "restart"]
        assert text_of(again) == result["result"]


async def test_after_a_restart_of_the_service_an_old_position_is_answered_with_restart(tmp_path: Any) -> None:
    async with service_in_process(folder=tmp_path) as service:
        service.stall()
        job_id = await service.submit()
        async with following(service, job_id) as listener:
            position = (await listener.until("output"))[-1].id
    async with service_in_process(folder=tmp_path) as service:
        await service.until(job_id, "completed")
        events = await all_events(service, job_id, position)
        _, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
    assert [event.name for event in events][:2] == ["status", "restart"]
    assert text_of(events) == result["result"]


async def test_a_queued_job_tells_its_position_and_when_that_changes(service: RunningService) -> None:
    stalled = service.stall()
    await service.until(await service.submit("first"), "processing")
    second, third = await service.submit("second"), await service.submit("third")
    async with following(service, third) as listener:
        [status] = await listener.until("status")
        assert (status.data["status"], status.data["position"]) == ("queued", 2)
        await service.call("DELETE", f"/api/v1/prompt/{second}")
        [status] = await listener.until("status")
        assert (status.data["status"], status.data["position"]) == ("queued", 1)
        stalled.release()
        assert (await listener.until("done"))[-1].data["status"] == "completed"


async def test_a_cancelled_job_ends_its_stream_with_the_reason(service: RunningService) -> None:
    service.stall()
    job_id = await service.submit()
    async with following(service, job_id) as listener:
        await listener.until("output")
        await service.call("DELETE", f"/api/v1/prompt/{job_id}")
        done = (await listener.until("done"))[-1]
    assert done.data["status"] == "cancelled"
    assert done.data["error"]["code"] == "cancelled"


async def test_a_silent_stream_has_heartbeats() -> None:
    async with service_in_process({"websocket.heartbeat_seconds": 0.05}) as service:
        service.stall(after_tokens=0)
        async with following(service, await service.submit()) as listener:
            seen = await listener.until(":")
    assert seen[-1].data.startswith(": ")


async def test_a_client_that_leaves_frees_everything(service: RunningService) -> None:
    stalled = service.stall(after_tokens=0)
    job_id = await service.submit()
    channels = service.hub._channels
    async with following(service, job_id) as listener:
        await listener.until("status")
        assert job_channel(job_id) in channels
    async with asyncio.timeout(PATIENCE_SECONDS):
        while job_channel(job_id) in channels:
            await service.call("GET", "/health")
    stalled.release()


async def test_a_slow_reader_holds_up_nobody() -> None:
    async with service_in_process(settings=LONG) as service:
        stalled = service.stall(after_tokens=1)
        job_id = await service.submit()
        async with following(service, job_id) as slow, following(service, job_id) as quick:
            await quick.until("output")
            stalled.release()
            assert (await quick.until("done"))[-1].data["status"] == "completed"
            seen = [event async for event in slow]
        assert text_of(seen) == LONG.answer_text


async def test_a_stop_of_the_service_ends_the_stream_without_done(service: RunningService) -> None:
    service.stall()
    async with following(service, await service.submit()) as listener:
        await listener.until("output")
        async with asyncio.timeout(PATIENCE_SECONDS):
            stop = asyncio.create_task(service.stop())
            assert "done" not in [event.name async for event in listener]
            await stop
