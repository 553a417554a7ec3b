"""The prompts API: submit, look, wait, read the result, cancel, list."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urljoin

import pytest

from service.api.context import LONG_LIVED
from service.simulated import Fault, FaultKind
from tests.support.running import QUICK, RunningService, service_in_process

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process(seats=1) as running:
        yield running


async def test_a_prompt_is_accepted_with_its_id_position_and_address(service: RunningService) -> None:
    async with service.session.post("/api/v1/prompt", json={"prompt": "hello"}) as response:
        answer = await response.json()
    assert response.status == 202
    assert UUID.fullmatch(answer["id"])
    assert (answer["status"], answer["position"]) == ("queued", 1)
    assert urljoin(str(response.url), response.headers["Location"]).endswith(f"/api/v1/prompt/{answer['id']}/status")
    assert response.headers["Cache-Control"] == "no-store"


async def test_a_completed_job_has_its_text_counts_and_timings(service: RunningService) -> None:
    job_id = await service.finished("hello")
    status, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
    assert status == 200
    assert result["status"] == "completed"
    assert result["model"] == "llama3.2"
    assert len(result["result"].split()) == QUICK.tokens == result["completion_tokens"]
    assert result["prompt_tokens"] > 0
    assert result["done_reason"] == "stop"
    assert set(result["timings"]) >= {"queue_seconds", "total_seconds"}
    assert all(MOMENT.fullmatch(result[name]) for name in ("created_at", "started_at", "finished_at"))
    assert not {"error", "last_error", "thinking", "tool_calls", "position"} & set(result)


async def test_a_result_that_is_waited_for_comes_with_the_end_of_the_job(service: RunningService) -> None:
    stall = service.stall()
    running, waiting = await service.submit("first"), await service.submit("second")
    path = f"/api/v1/prompt/{running}/result"
    _, early = await service.call("GET", path, params={"wait": "0.01"})
    assert (early["status"], "result" in early) == ("processing", False)
    polls = [
        asyncio.create_task(service.call("GET", f"/api/v1/prompt/{one}/result", params={"wait": "60"}))
        for one in (running, waiting)
    ]
    await service.look(running, lambda _: len(service.app[LONG_LIVED]) == 2)
    stall.release()
    for status, result in await asyncio.gather(*polls):
        assert (status, result["status"]) == (200, "completed")
        assert len(result["result"].split()) == QUICK.tokens
    # A change that is no end is not told: the second has gone from queued to processing meanwhile.
    final = await service.call("GET", path, params={"wait": "60"})
    assert final[1]["status"] == "completed"


async def test_a_result_says_that_the_answer_was_cut_at_its_bound(service: RunningService) -> None:
    job_id = await service.finished("hello", options={"num_predict": 3})
    _, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
    assert (result["completion_tokens"], result["done_reason"]) == (3, "length")


async def test_what_ollama_is_asked_can_be_read_and_posted_again(service: RunningService) -> None:
    asked: dict[str, Any] = {
        "prompt": "hello",
        "system": "Be brief.",
        "options": {"seed": 7, "temperature": 0.5},
        "format": "json",
    }
    job_id = await service.finished(**asked)
    status, body = await service.call("GET", f"/api/v1/prompt/{job_id}/request")
    assert (status, body) == (200, {"model": "llama3.2", "stream": True, **asked})
    assert json.loads(service.ollama.observations.seen[-1].body) == body
    del body["stream"]
    again = await service.finished(**body)
    assert (await service.call("GET", f"/api/v1/prompt/{again}/request"))[1] == {**body, "stream": True}


async def test_half_a_character_is_shown_as_one_that_is_unknown(service: RunningService) -> None:
    body = b'{"model": "llama3.2", "prompt": "half \\ud800", "stream": false}'
    async with service.session.post("/api/generate", data=body) as response:
        job_id = response.headers["X-Job-Id"]
        await response.read()
    status, asked = await service.call("GET", f"/api/v1/prompt/{job_id}/request")
    assert (status, asked) == (200, {"model": "llama3.2", "prompt": "half ?", "stream": False})


async def test_what_a_model_thinks_and_calls_is_in_the_result(service: RunningService) -> None:
    job_id = await service.finished("hello", model="thinker")
    _, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
    assert result["thinking"]
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    messages = [{"role": "user", "content": "call weather"}]
    status, answer = await service.call("POST", "/api/v1/prompt", {"messages": messages, "tools": [tool]})
    assert status == 202, answer
    await service.until(answer["id"], "completed")
    _, result = await service.call("GET", f"/api/v1/prompt/{answer['id']}/result")
    assert [call["function"]["name"] for call in result["tool_calls"]] == ["weather"]


@pytest.mark.parametrize(
    ("fields", "endpoint", "sent"),
    [
        ({"prompt": "p", "system": "s"}, "/api/generate", {"prompt": "p", "system": "s"}),
        ({"prompt": "p", "options": {"seed": 1}}, "/api/generate", {"prompt": "p", "options": {"seed": 1}}),
        ({"prompt": "p", "format": "json"}, "/api/generate", {"prompt": "p", "format": "json"}),
        ({"prompt": "p", "think": False}, "/api/generate", {"prompt": "p", "think": False}),
        ({"prompt": "p", "keep_alive": "5m"}, "/api/generate", {"prompt": "p", "keep_alive": "5m"}),
        ({"prompt": "p", "images": ["aGk="]}, "/api/generate", {"prompt": "p", "images": ["aGk="]}),
        ({"prompt": "p", "model": None, "system": None}, "/api/generate", {"prompt": "p"}),
        (
            {"messages": [{"role": "user", "content": "c"}], "system": "s"},
            "/api/chat",
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "c"}]},
        ),
    ],
)
async def test_the_fields_of_a_prompt_go_to_ollama(
    service: RunningService, fields: dict[str, Any], endpoint: str, sent: dict[str, Any]
) -> None:
    status, answer = await service.call("POST", "/api/v1/prompt", fields)
    assert status == 202, answer
    await service.until(answer["id"], "completed")
    [seen] = service.ollama.observations.seen
    assert seen.endpoint == endpoint
    assert json.loads(seen.body) == {"model": "llama3.2", "stream": True, **sent}


async def test_a_queued_job_knows_its_position_and_a_running_one_its_start(service: RunningService) -> None:
    stalled = service.stall()
    first = await service.submit("first")
    await service.until(first, "processing")
    second, third = await service.submit("second"), await service.submit("third")
    _, running = await service.call("GET", f"/api/v1/prompt/{first}/status")
    _, waiting = await service.call("GET", f"/api/v1/prompt/{second}/status")
    _, last = await service.call("GET", f"/api/v1/prompt/{third}/status")
    stalled.release()
    assert running["status"] == "processing"
    assert running["attempt"] == 1
    assert "position" not in running
    assert "started_at" in running
    assert (waiting["status"], waiting["position"], waiting["attempt"]) == ("queued", 1, 0)
    assert last["position"] == 2
    assert "started_at" not in waiting


@pytest.mark.parametrize(
    ("given", "word"), [("high", "high"), ("LOW", "low"), (1, "high"), (0, "normal"), (-1, "low"), (None, "normal")]
)
async def test_a_priority_is_a_word_or_its_number(service: RunningService, given: Any, word: str) -> None:
    job_id = await service.submit("p", priority=given)
    _, answer = await service.call("GET", f"/api/v1/prompt/{job_id}/status")
    assert answer["priority"] == word


async def test_a_long_poll_answers_when_the_status_is_no_longer_the_known_one(service: RunningService) -> None:
    stalled = service.stall()
    job_id = await service.submit()
    await service.until(job_id, "processing")
    path = f"/api/v1/prompt/{job_id}/status"
    poll = asyncio.create_task(service.call("GET", path, params={"wait": "60", "status": "processing"}))
    stale = await service.call("GET", path, params={"wait": "60", "status": "queued"})
    assert stale[1]["status"] == "processing"
    assert not poll.done()
    stalled.release()
    assert (await poll)[1]["status"] == "completed"
    final = await service.call("GET", path, params={"wait": "60", "status": "completed"})
    assert final[1]["status"] == "completed"


async def test_a_thousand_characters_may_be_searched_for(service: RunningService) -> None:
    job_id = await service.submit("𓀀" * 1000)
    status, page = await service.call("GET", "/api/v1/prompts", params={"q": "𓀀" * 1000})
    assert (status, [job["id"] for job in page["prompts"]]) == (200, [job_id])
    assert (await service.call("GET", "/api/v1/prompts", params={"q": "𓀀" * 1001}))[0] == 400


@pytest.mark.parametrize("part", ["status", "result"])
async def test_a_long_poll_ends_after_its_time_and_at_a_stop(service: RunningService, part: str) -> None:
    service.stall()
    job_id = await service.submit()
    await service.until(job_id, "processing")
    path = f"/api/v1/prompt/{job_id}/{part}"
    assert (await service.call("GET", path, params={"wait": "0.01"}))[1]["status"] == "processing"
    poll = asyncio.create_task(service.call("GET", path, params={"wait": "60"}))
    await service.ollama.observations.until(lambda seen: seen.stalled == 1)
    await service.look(job_id, lambda _: len(service.app[LONG_LIVED]) == 1)
    async with service.session.get(path):
        await service.stop()
    status, answer = await poll
    assert (status, answer["status"]) in ((200, "processing"), (200, "queued"))


@pytest.mark.parametrize("part", ["status", "result"])
async def test_a_long_poll_ends_when_its_caller_leaves(service: RunningService, part: str) -> None:
    service.stall()
    job_id = await service.submit()
    await service.until(job_id, "processing")
    path = f"/api/v1/prompt/{job_id}/{part}"
    stays = asyncio.create_task(service.call("GET", path, params={"wait": "60"}))
    leaves = asyncio.create_task(service.call("GET", path, params={"wait": "60"}))
    await service.look(job_id, lambda _: len(service.app[LONG_LIVED]) == 2)
    leaves.cancel()
    await asyncio.wait((leaves,))
    await service.look(job_id, lambda _: len(service.app[LONG_LIVED]) == 1)
    assert not stays.done()
    assert (await service.call("DELETE", f"/api/v1/prompt/{job_id}"))[1]["status"] == "cancelled"
    # A job that ended otherwise is an end, too, and those who still wait are told.
    assert (await stays)[1]["status"] == "cancelled"


async def test_cancelling_a_queued_job_ends_it_and_again_changes_nothing(service: RunningService) -> None:
    stalled = service.stall()
    await service.until(await service.submit("first"), "processing")
    job_id = await service.submit("second")
    first = await service.call("DELETE", f"/api/v1/prompt/{job_id}")
    second = await service.call("DELETE", f"/api/v1/prompt/{job_id}")
    stalled.release()
    assert first[0] == 200
    assert first[1]["status"] == "cancelled"
    assert second == first
    assert service.ollama.observations.prompts == ["first"]


async def test_cancelling_a_running_job_closes_the_connection_to_ollama(service: RunningService) -> None:
    service.stall()
    job_id = await service.submit()
    await service.until(job_id, "processing")
    await service.ollama.observations.until(lambda seen: seen.stalled == 1)
    status, answer = await service.call("DELETE", f"/api/v1/prompt/{job_id}")
    assert (status, answer["status"]) == (200, "cancelled")
    await service.ollama.observations.until(lambda seen: seen.closed_connections == 1)


async def test_cancelling_a_finished_job_leaves_it_as_it_is(service: RunningService) -> None:
    job_id = await service.finished()
    _, before = await service.call("GET", f"/api/v1/prompt/{job_id}/status")
    assert await service.call("DELETE", f"/api/v1/prompt/{job_id}") == (200, before)


async def test_a_failed_job_says_why(service: RunningService) -> None:
    service.ollama.arm(refusal(400, "no such thing"))
    job_id = await service.submit()
    await service.until(job_id, "failed")
    status, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
    assert status == 200
    assert result["status"] == "failed"
    assert result["error"]["message"] == "no such thing"
    assert result["error"]["code"]
    assert result["result"] == "The prompt failed: no such thing"


async def test_a_job_that_waits_to_be_tried_again_says_when_and_why() -> None:
    async with service_in_process({"retry.initial_seconds": 3600, "retry.cap_seconds": 3600}) as service:
        service.ollama.arm(refusal(500, "something transient"))
        job_id = await service.submit()
        answer = await service.look(job_id, lambda job: job["failures"] == 1)
    assert (answer["failures"], answer["attempt"]) == (1, 1)
    assert MOMENT.fullmatch(answer["next_attempt_at"])
    assert answer["last_error"]["message"] == "something transient"
    assert "error" not in answer


async def test_nothing_is_left_of_an_error_that_was_overcome() -> None:
    async with service_in_process({"retry.initial_seconds": 0.01}) as service:
        service.ollama.arm(refusal(500, "something transient", times=1))
        answer = await service.until(await service.submit(), "completed")
    assert (answer["failures"], answer["attempt"]) == (1, 2)
    assert not {"last_error", "error", "next_attempt_at"} & set(answer)


def refusal(status: int, message: str, **matching: Any) -> Fault:
    return Fault(kind=FaultKind.ERROR, endpoint="/api/generate", status=status, message=message, **matching)


async def test_the_list_is_newest_first_in_pages_with_filters(service: RunningService) -> None:
    ids = [await service.finished(f"prompt {number} 100%") for number in range(7)]
    other = await service.finished("x" * 300, model="thinker")
    _, page = await service.call("GET", "/api/v1/prompts")
    assert [row["id"] for row in page["prompts"]] == [other, *reversed(ids[3:])]
    assert (page["page"], page["page_size"], page["total"], page["total_pages"]) == (1, 5, 8, 2)
    assert page["prompts"][0]["prompt"] == "x" * 200
    assert {"id", "status", "created_at", "updated_at", "model", "priority", "prompt"} <= set(page["prompts"][0])
    _, second = await service.call("GET", "/api/v1/prompts", params={"page": "2"})
    assert [row["id"] for row in second["prompts"]] == list(reversed(ids[:3]))
    for query, found in (
        ({"model": "Thinker:latest"}, [other]),
        ({"q": "3 100%"}, [ids[3]]),
        ({"q": "_"}, []),
        ({"status": "failed"}, []),
        ({"status": "completed", "page_size": "1"}, [other]),
        ({"page": "99"}, []),
    ):
        _, page = await service.call("GET", "/api/v1/prompts", params=query)
        assert [row["id"] for row in page["prompts"]] == found, query


async def test_the_two_doors_show_the_same_jobs(service: RunningService) -> None:
    job_id = await service.finished("by one door")
    _, accepted = await service.call("POST", "/generate", {"prompt": "by the other", "model": "thinker"})
    _, page = await service.call("GET", "/api/v1/prompts")
    assert [row["prompt"] for row in page["prompts"]] == ["by the other", "by one door"]
    _, rows = await service.call("GET", "/requests")
    assert [row["prompt"] for row in rows["requests"]] == ["by the other", "by one door"]
    assert rows["requests"][0]["request_id"] == accepted["request_id"]
    assert page["prompts"][1]["id"] == job_id


async def test_health_says_that_all_is_well_or_what_is_not(service: RunningService) -> None:
    await service.finished()
    status, health = await service.call("GET", "/health")
    assert (status, health["status"], health["database"]) == (200, "ok", {"status": "ok"})
    assert health["service"] == "corral"
    assert health["backends"][0]["status"] == "ok"
    service.jobs.ledger.store_trouble = "the disk is full"
    status, health = await service.call("GET", "/health")
    assert (status, health["database"]) == (503, {"status": "failed", "error": "the disk is full"})
    assert health["service"] == "corral"


async def test_a_full_queue_is_refused_with_a_time_to_come_again() -> None:
    async with service_in_process({"queue.max_size": 1}, seats=1) as service:
        service.stall()
        await service.until(await service.submit("first"), "processing")
        await service.submit("second")
        async with service.session.post("/api/v1/prompt", json={"prompt": "third"}) as response:
            answer = await response.json(content_type=None)
        assert response.status == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert "full" in answer["error"]
