"""The websocket: snapshots and then every change, at each client's own pace."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.api.context import LONG_LIVED
from service.api.live.feeds import FEEDS
from service.simulated import Fault, FaultKind, SimulatedSettings
from tests.support.raw_client import request_head
from tests.support.running import MODELS, PATIENCE_SECONDS, RunningService, service_in_process

LONG = SimulatedSettings(models=MODELS, parallel=8, answer_text="wörter 😀 " * 15_000)


class Client:
    """One websocket, and what it has heard."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []

    async def say(self, **message: Any) -> None:
        await self.socket.send_str(json.dumps(message))

    async def subscribe(self, channel: str, **fields: Any) -> dict[str, Any]:
        """Subscribe, and answer with the snapshot."""
        await self.say(type="subscribe", channel=channel, **fields)
        return await self.hears(lambda message: message["type"] == "subscribed" and message["channel"] == channel)

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            received = await self.socket.receive()
        assert received.type is aiohttp.WSMsgType.TEXT, received
        message: dict[str, Any] = json.loads(received.data)
        self.heard.append(message)
        return message

    async def hears(self, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Listen until a message is the one."""
        while True:
            message = await self.next()
            if is_it(message):
                return message

    async def hears_type(self, kind: str) -> dict[str, Any]:
        return await self.hears(lambda message: message["type"] == kind)

    async def all_that_came(self) -> list[dict[str, Any]]:
        """Everything that was sent before now: what the answer to a question comes after."""
        begin = len(self.heard)
        await self.say(type="?")
        await self.hears_type("error")
        return self.heard[begin:-1]

    def text(self) -> str:
        return "".join(message["data"] for message in self.heard if message["type"] == "output")


@asynccontextmanager
async def connected(service: RunningService, **options: Any) -> AsyncIterator[Client]:
    async with service.session.ws_connect("/api/v1/ws", **options) as socket:
        yield Client(socket)


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process(seats=1) as running:
        yield running


async def test_the_jobs_channel_gives_the_newest_jobs_and_then_every_change(service: RunningService) -> None:
    old = [await service.finished(f"old {number}") for number in range(3)]
    async with connected(service) as client:
        snapshot = await client.subscribe("jobs")
        assert [row["id"] for row in snapshot["jobs"]] == list(reversed(old))
        assert snapshot["total"] == 3
        job_id = await service.submit("new")
        await client.hears(lambda message: message.get("status") == "completed")
    changes = [message for message in client.heard if message["type"] == "job"]
    # Two changes in one moment are one message, the latest.
    statuses = [change["status"] for change in changes]
    assert statuses == [status for status in ("queued", "processing", "completed") if status in statuses]
    assert {change["id"] for change in changes} == {job_id}
    required = {"id", "status", "model", "priority", "attempt", "created_at", "updated_at", "prompt"}
    assert all(required <= set(change) for change in changes)


async def test_a_followed_job_is_seen_from_its_snapshot_to_done(service: RunningService) -> None:
    stalled = service.stall()
    job_id = await service.submit()
    async with connected(service) as client:
        snapshot = await client.subscribe("job", id=job_id.upper())
        assert snapshot["id"] == snapshot["job"]["id"] == job_id
        assert snapshot["job"]["status"] in ("queued", "processing")
        output = await client.hears_type("output")
        assert set(output) == {"type", "id", "attempt", "offset", "kind", "data", "position"}
        assert output["position"] == f"{output['attempt']}.{output['offset'] + len(output['data'])}"
        stalled.release()
        done = await client.hears_type("done")
        ended = {"status": "completed", "final": True, "done_reason": "stop"}
        assert done == {"type": "done", "id": job_id, **ended}
        assert client.heard[-2]["type"] == "job"
        assert client.heard[-2]["status"] == "completed"
        _, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
        assert client.text() == result["result"]
        assert await client.all_that_came() == []


async def test_a_position_gives_exactly_the_rest(service: RunningService) -> None:
    job_id = await service.finished("hello", model="thinker")
    async with connected(service) as client:
        await client.subscribe("job", id=job_id)
        await client.hears_type("done")
        whole = client.text()
        for offset in range(0, len(whole) + 1, 11):
            client.heard.clear()
            await client.subscribe("job", id=job_id, **{"from": f"1.{offset}"})
            await client.hears_type("done")
            assert client.text() == whole[offset:]
        client.heard.clear()
        await client.subscribe("job", id=job_id, **{"from": "7.3"})
        await client.hears_type("done")
        assert [message["type"] for message in client.heard[:2]] == ["subscribed", "restart"]
        assert client.text() == whole


async def test_a_new_attempt_is_announced_with_restart() -> None:
    async with service_in_process({"retry.initial_seconds": 0.01}) as service:
        stalled = service.stall(after_tokens=3, times=1)
        service.ollama.arm(Fault(kind=FaultKind.HANG_UP, endpoint="/api/generate", after_tokens=5, times=1))
        async with connected(service) as client:
            job_id = await service.submit()
            await client.subscribe("job", id=job_id)
            await client.hears_type("output")
            stalled.release()
            await client.hears_type("restart")
            begun = len(client.heard)
            await client.hears_type("done")
        outputs = [message for message in client.heard[begun:] if message["type"] == "output"]
        assert {message["attempt"] for message in outputs} == {2}
        _, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
        assert "".join(message["data"] for message in outputs) == result["result"]


async def test_each_change_is_told_once_even_to_whoever_listens_twice(service: RunningService) -> None:
    stalled = service.stall()
    async with connected(service) as client:
        await client.subscribe("jobs")
        job_id = await service.submit()
        await service.until(job_id, "processing")
        await client.subscribe("job", id=job_id)
        client.heard.clear()
        stalled.release()
        await client.hears_type("done")
        assert [message["status"] for message in client.heard if message["type"] == "job"] == ["completed"]
        assert await client.all_that_came() == []


async def test_nothing_is_lost_between_snapshot_and_changes(service: RunningService) -> None:
    async with connected(service) as client:
        submissions = [asyncio.create_task(service.submit(f"prompt {number}")) for number in range(30)]
        await client.say(type="subscribe", channel="jobs")
        ids = set(await asyncio.gather(*submissions))
        last: dict[str, str] = {}
        while set(last) != ids or set(last.values()) != {"completed"}:
            message = await client.next()
            for job in message["jobs"] if message["type"] == "subscribed" else [message]:
                assert last.get(job["id"]) != "completed", "a job was told of after its end"
                last[job["id"]] = job["status"]


async def test_a_followed_job_that_waits_is_told_its_position(service: RunningService) -> None:
    stalled = service.stall()
    await service.until(await service.submit("first"), "processing")
    second, third = await service.submit("second"), await service.submit("third")
    async with connected(service) as client:
        snapshot = await client.subscribe("job", id=third)
        assert snapshot["job"]["position"] == 2
        await service.call("DELETE", f"/api/v1/prompt/{second}")
        moved = await client.hears_type("job")
        assert (moved["status"], moved["position"]) == ("queued", 1)
    stalled.release()


async def test_the_stats_channel_counts_jobs_and_seats(service: RunningService) -> None:
    await service.finished()
    async with connected(service) as client:
        snapshot = await client.subscribe("stats")
        assert snapshot["stats"]["completed"] == 1
        assert snapshot["stats"]["seats"] == 1
        stalled = service.stall()
        await service.submit()
        await service.submit()
        stats = await client.hears(lambda message: message["type"] == "stats" and message["running"] == 1)
        assert {stats[name] for name in ("queued", "processing", "completed", "failed", "cancelled")} == {1, 0}
        stalled.release()


async def test_what_is_unsubscribed_is_not_heard_any_more(service: RunningService) -> None:
    stalled = service.stall()
    job_id = await service.submit()
    async with connected(service) as client:
        await client.subscribe("jobs")
        await client.subscribe("job", id=job_id)
        await client.subscribe("stats")
        for channel in ({"channel": "jobs"}, {"channel": "job", "id": job_id}, {"channel": "stats"}):
            await client.say(type="unsubscribe", **channel)
        await client.all_that_came()
        stalled.release()
        await service.until(job_id, "completed")
        await service.finished("another")
        assert await client.all_that_came() == []
    assert service.app[FEEDS]._open == {}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("nonsense", "not JSON"),
        ("[]", "JSON object"),
        ("{}", "type"),
        ('{"type": 5}', "type"),
        ('{"type": ["subscribe"]}', "type"),
        ('{"type": "subscribe"}', "channel"),
        ('{"type": "subscribe", "channel": "everything"}', "channel"),
        ('{"type": "subscribe", "channel": "job"}', "id"),
        ('{"type": "subscribe", "channel": "job", "id": 5}', "id"),
        ('{"type": "subscribe", "channel": "job", "id": "nonsense"}', "no prompt"),
        ('{"type": "subscribe", "channel": "job", "id": "01890a5d-ac96-774b-bcce-b302099a8057"}', "no prompt"),
        ('{"type": "subscribe", "channel": "job", "id": "x", "from": "here"}', "from"),
        ('{"type": "subscribe", "channel": "jobs", "more": 1}', "more"),
        ('{"type": "auth"}', "token"),
        ('{"type": "auth", "token": "\\ud800"}', "token"),
        ("[" * 5_000, "levels deep"),
        (b"\x00\xff", "text"),
    ],
)
async def test_garbage_is_answered_with_an_error_and_the_connection_stays(
    service: RunningService, message: str | bytes, words: str
) -> None:
    async with connected(service) as client:
        if isinstance(message, bytes):
            await client.socket.send_bytes(message)
        else:
            await client.socket.send_str(message)
        answer = await client.next()
        assert answer["type"] == "error"
        assert words in answer["error"]
        await client.subscribe("jobs")


async def test_an_error_about_a_subscription_says_which(service: RunningService) -> None:
    async with connected(service) as client:
        await client.say(type="subscribe", channel="job", id="nonsense")
        answer = await client.next()
    assert (answer["channel"], answer["id"]) == ("job", "nonsense")


async def test_a_token_is_taken_without_a_word(service: RunningService) -> None:
    async with connected(service) as client:
        await client.say(type="auth", token="anything")
        assert await client.all_that_came() == []


async def test_subscriptions_are_limited() -> None:
    async with service_in_process({"websocket.max_subscriptions": 2}, seats=1) as service:
        stalled = service.stall()
        ids = [await service.submit(f"prompt {number}") for number in range(3)]
        async with connected(service) as client:
            await client.subscribe("jobs")
            await client.subscribe("job", id=ids[1])
            await client.say(type="subscribe", channel="job", id=ids[2])
            assert "at most 2" in (await client.hears_type("error"))["error"]
            await client.subscribe("job", id=ids[1])
            await client.say(type="unsubscribe", channel="jobs")
            await client.subscribe("job", id=ids[2])
        stalled.release()


async def test_a_message_that_is_too_large_ends_the_connection(service: RunningService) -> None:
    async with connected(service) as client:
        await client.socket.send_str(json.dumps({"type": "auth", "token": "x" * 70_000}))
        async with asyncio.timeout(PATIENCE_SECONDS):
            message = await client.socket.receive()
    assert message.type is aiohttp.WSMsgType.CLOSE
    assert message.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_a_slow_reader_gets_the_whole_answer_and_holds_up_nobody() -> None:
    async with service_in_process(settings=LONG) as service:
        stalled = service.stall(after_tokens=1)
        job_id = await service.submit()
        async with connected(service) as slow, connected(service) as quick:
            await slow.subscribe("job", id=job_id)
            await quick.subscribe("job", id=job_id)
            stalled.release()
            await quick.hears_type("done")
            await slow.hears_type("done")
            _, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
            assert quick.text() == slow.text() == result["result"]


async def test_a_reader_that_falls_too_far_behind_is_told_to_read_the_list_again() -> None:
    async with service_in_process({"websocket.max_outbox_messages": 10}) as service, connected(service) as client:
        job = (await service.jobs.views.view(await service.finished())).job
        await client.subscribe("jobs")
        # No message is written before the next await: all of these wait at once.
        for number in range(11):
            service.hub.publish(job._replace(id=f"job {number}"))
        reset = await client.next()
        assert reset == {"type": "reset", "channel": "jobs"}
        assert (await client.next())["id"] == "job 10"
        assert await client.all_that_came() == []


async def test_of_one_job_only_the_latest_change_waits(service: RunningService) -> None:
    job = (await service.jobs.views.view(await service.finished())).job
    async with connected(service) as client:
        await client.subscribe("jobs")
        for attempt in range(1, 6):
            service.hub.publish(job._replace(attempt=attempt))
        assert [message["attempt"] for message in await client.all_that_came()] == [5]


async def test_a_client_that_leaves_frees_everything(service: RunningService) -> None:
    stalled = service.stall()
    job_id = await service.submit()
    listening = {channel: dict(subscribers) for channel, subscribers in service.hub._channels.items()}
    async with connected(service) as client:
        await client.subscribe("jobs")
        await client.subscribe("stats")
        await client.subscribe("job", id=job_id)
        assert service.hub._channels != listening
    async with asyncio.timeout(PATIENCE_SECONDS):
        while service.hub._channels != listening or service.app[LONG_LIVED] or service.app[FEEDS]._open:
            await service.call("GET", "/health")
    stalled.release()


async def test_a_client_that_leaves_after_a_ping_is_nobodys_error(
    service: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    upgrade = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
    head = request_head("GET", "/api/v1/ws", *upgrade, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    subscription = b'{"type":"subscribe","channel":"jobs"}'
    frame = bytes([0x81, 0x80 | len(subscription), 0, 0, 0, 0]) + subscription
    ping = bytes([0x89, 0x80, 0, 0, 0, 0])
    for _ in range(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(head + b"\r\n\r\n" + (frame + ping) * 5)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await reader.read()
        writer.close()
    assert (await service.call("GET", "/health"))[0] == 200
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_stop_closes_every_connection_as_going_away(service: RunningService) -> None:
    async with connected(service) as first, connected(service) as second:
        await first.subscribe("jobs")
        stop = asyncio.create_task(service.stop())
        async with asyncio.timeout(PATIENCE_SECONDS):
            for client in (first, second):
                message = await client.socket.receive()
                assert message.type is aiohttp.WSMsgType.CLOSE
                assert message.data == aiohttp.WSCloseCode.GOING_AWAY
            await stop


async def test_a_position_holds_over_a_restart_of_the_service(tmp_path: Path) -> None:
    async with service_in_process(folder=tmp_path) as service:
        service.stall()
        job_id = await service.submit()
        async with connected(service) as client:
            await client.subscribe("job", id=job_id)
            position = (await client.hears_type("output"))["position"]
    async with service_in_process(folder=tmp_path) as service, connected(service) as client:
        await client.subscribe("job", id=job_id, **{"from": position})
        await client.hears_type("done")
        kinds = [message["type"] for message in client.heard]
        assert kinds.index("restart") < kinds.index("output")
        _, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
        assert client.text() == result["result"]
