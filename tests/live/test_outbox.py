"""What waits for one client: bounded, in order, the latest word on each thing, and nothing held up by anything else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.live.websocket.outbox import Outbox
from service.errors import StoreError
from service.job import Job
from service.live.hub import JobChanged

MOST = 3
RESET = {"type": "reset", "channel": "jobs"}
NO_JOB = Job._make([None] * len(Job._fields))


class Client:
    """Takes messages while it is open, and keeps one that comes while it is not until it is open again."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.is_gone = False
        self._opened = asyncio.Event()
        self.open()

    def open(self) -> None:
        self._opened.set()

    def shut(self) -> None:
        self._opened.clear()

    async def take(self, text: str) -> None:
        await self._opened.wait()
        if self.is_gone:
            raise ConnectionResetError
        self.heard.append(json.loads(text))

    def of_type(self, kind: str) -> list[Any]:
        return [message["word"] for message in self.heard if message["type"] == kind]


class Source:
    """Something that is read, once for each time that it was ready."""

    def __init__(self, *messages: dict[str, Any], error: Exception | None = None) -> None:
        self._messages = list(messages)
        self._error = error

    async def read(self) -> list[dict[str, Any]]:
        if self._error is not None:
            raise self._error
        return self._messages


def reply(word: Any) -> dict[str, Any]:
    return {"type": "reply", "word": word}


def change(job: str, word: int) -> JobChanged:
    event = JobChanged(NO_JOB._replace(id=job))
    event.text = json.dumps({"type": "job", "id": job, "word": word})
    return event


async def written() -> None:
    """Until every writer has nothing more to write."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


STEPS = st.lists(st.sampled_from(["reply", "figures", "turn", "shut", "open"]) | st.sampled_from("abcde"), max_size=60)


@given(steps=STEPS)
def test_replies_come_in_order_and_of_all_else_the_latest(steps: list[str]) -> None:
    async def scenario() -> None:
        client = Client()
        outbox = Outbox(client.take, MOST)
        latest: dict[str, int] = {}
        for number, step in enumerate(steps):
            match step:
                case "reply":
                    outbox.reply(reply(number))
                case "figures":
                    outbox.figures(json.dumps({"type": "figures", "word": number}))
                case "turn":
                    await asyncio.sleep(0)
                case "shut":
                    client.shut()
                case "open":
                    client.open()
                case job:
                    outbox.change(change(job, number))
                    latest[job] = number
        client.open()
        await written()
        assert client.of_type("reply") == [number for number, step in enumerate(steps) if step == "reply"]
        figures = [number for number, step in enumerate(steps) if step == "figures"]
        assert set(client.of_type("figures")) <= set(figures)
        assert client.of_type("figures")[-1:] == figures[-1:]
        assert client.of_type("figures") == sorted(client.of_type("figures"))
        for job, word in latest.items():
            own = [message for message in client.heard if message == RESET or message.get("id") == job]
            words = [message["word"] for message in own if message != RESET]
            assert words == sorted(set(words))
            # The latest was told, or that there was too much to tell.
            assert own[-1] == RESET or own[-1]["word"] == word

    asyncio.run(scenario())


async def test_of_too_many_jobs_a_client_that_does_not_read_hears_only_that_they_were_too_many() -> None:
    client = Client()
    outbox = Outbox(client.take, MOST)
    client.shut()
    outbox.reply(reply("first"))
    await asyncio.sleep(0)
    for number in range(10 * MOST + 1):
        outbox.change(change(f"job {number}", number))
    client.open()
    await written()
    assert client.heard.count(RESET) == 10
    assert client.of_type("job") == [10 * MOST]


async def test_a_flood_of_one_kind_does_not_hold_up_the_others() -> None:
    client = Client()
    outbox = Outbox(client.take, 1000)
    for number in range(100):
        outbox.change(change(f"job {number}", number))
    outbox.figures('{"type": "figures", "word": 1}')
    outbox.ready(Source({"type": "output", "word": 1}))
    outbox.reply(reply(1))
    await written()
    assert [message["type"] for message in client.heard] == ["reply", *["job"] * 100, "figures", "output"]


async def test_a_source_that_fails_says_so_and_holds_up_no_other() -> None:
    client = Client()
    outbox = Outbox(client.take, MOST)
    outbox.ready(Source(error=StoreError("the disk is gone")))
    outbox.ready(Source({"type": "output", "word": 1}, {"type": "output", "word": 2}))
    await written()
    assert client.heard[0] == {"type": "error", "error": "the disk is gone"}
    assert client.of_type("output") == [1, 2]


async def test_what_is_forgotten_is_not_sent() -> None:
    client = Client()
    outbox = Outbox(client.take, MOST)
    source = Source({"type": "output", "word": 1})
    outbox.change(change("job", 1))
    outbox.ready(source)
    outbox.ready(source)
    outbox.forget(source)
    outbox.forget_changes()
    await written()
    assert client.heard == []


async def test_who_asks_faster_than_it_reads_waits_until_it_has_read() -> None:
    client = Client()
    outbox = Outbox(client.take, MOST)
    client.shut()
    for number in range(100):
        outbox.reply(reply(number))
    await outbox.has_room()
    for number in range(100, 103):
        outbox.reply(reply(number))
    waiting = asyncio.create_task(outbox.has_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    client.open()
    await waiting
    assert client.of_type("reply") == list(range(103))


@pytest.mark.parametrize("end", ["the client is gone", "the outbox is closed"])
async def test_at_the_end_nothing_is_sent_and_nobody_waits_for_room(end: str) -> None:
    client = Client()
    outbox = Outbox(client.take, MOST)
    client.shut()
    for number in range(200):
        outbox.reply(reply(number))
    waiting = asyncio.create_task(outbox.has_room())
    await asyncio.sleep(0)
    if end == "the client is gone":
        client.is_gone = True
        client.open()
    else:
        outbox.close()
    await waiting
    await written()
    assert client.heard == []
