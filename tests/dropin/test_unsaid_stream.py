"""Who gets a stream of a chat that does not say ``stream``, and who is told of an error in ``detail``, too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.api.http.operation import JSON, NDJSON
from service.api.http.unsaid_stream import Unsaid, unsaid_stream
from service.config import StreamDefault
from service.simulated import Fault, FaultKind
from tests.support.access import ADMIN, made_key, service_with_keys
from tests.support.running import QUICK, RunningService, service_in_process

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why?"}]}
OBJECT, STREAM, WHOLE = Unsaid.OBJECT, Unsaid.STREAM, Unsaid.WHOLE


@pytest.mark.parametrize(
    ("accept", "default", "is_key_sent", "fields", "expected"),
    [
        ("*/*", "auto", False, {}, STREAM),
        ("", "auto", False, {}, STREAM),
        (JSON, "auto", False, {}, OBJECT),
        (f"text/plain, {JSON.upper()};q=0.9, */*", "auto", False, {}, OBJECT),
        ("application/json-seq", "auto", False, {}, STREAM),
        (f"{JSON};q=0", "auto", False, {}, STREAM),
        (f"{JSON} ; version=2 ; Q = 0.000", "auto", False, {}, STREAM),
        (f"{JSON};q=0.001", "auto", False, {}, OBJECT),
        (f"{NDJSON};q=0, {JSON}", "auto", False, {}, OBJECT),
        (f"{NDJSON};q=0, */*", "never", False, {}, WHOLE),
        ("*/*", "auto", True, {}, OBJECT),
        ("*/*", "auto", False, {"temperature": 0}, OBJECT),
        ("*/*", "auto", False, {"max_tokens": "many"}, OBJECT),
        ("*/*", "auto", False, {"model_name": "m"}, OBJECT),
        ("*/*", "auto", False, {"temperature": None, "model_name": None}, STREAM),
        ("*/*", "auto", False, {"top_p": 1, "num_ctx": 9, "options": {"temperature": 1}}, STREAM),
        (NDJSON, "auto", True, {"temperature": 1}, STREAM),
        (f"{JSON}, {NDJSON}", "auto", False, {}, STREAM),
        (NDJSON, "never", True, {"temperature": 1}, STREAM),
        ("*/*", "never", False, {}, WHOLE),
        (JSON, "never", True, {"temperature": 1}, WHOLE),
        (JSON, "always", True, {"temperature": 1}, STREAM),
    ],
)
def test_the_first_rule_that_applies_decides(
    accept: str, default: StreamDefault, is_key_sent: bool, fields: dict[str, Any], expected: Unsaid
) -> None:
    assert unsaid_stream([accept], default, is_key_sent=is_key_sent, fields=fields) is expected
    assert unsaid_stream(["text/html", accept], default, is_key_sent=is_key_sent, fields=fields) is expected


async def told(service: RunningService, body: Any, **headers: str) -> tuple[int, list[str]]:
    """The status of a refusal, and where it has its message."""
    status, answer = await service.call("POST", "/api/chat", body, headers=headers)
    assert len({answer[name] for name in ("error", "detail") if name in answer}) == 1
    return status, sorted(answer)


async def test_whoever_gets_one_object_by_the_third_rule_finds_the_message_in_detail_too() -> None:
    both, one = ["detail", "error"], ["error"]
    nowhere = {**CHAT, "model": "mödel"}
    async with service_in_process(settings=QUICK) as service:
        for accept, body, shape in (
            ("*/*", nowhere, one),
            ("*/*", {**nowhere, "temperature": 1}, both),
            ("*/*", {**nowhere, "model_name": "another"}, both),
            (JSON, nowhere, both),
            (JSON, {**nowhere, "stream": None}, both),
            (JSON, {**nowhere, "stream": False}, one),
            (JSON, {**nowhere, "stream": True}, one),
            (f"{JSON}, {NDJSON}", {**nowhere, "temperature": 1}, one),
        ):
            assert await told(service, body, Accept=accept) == (404, shape), (accept, body)
        assert await told(service, b"{", Accept=JSON) == (400, both)
        assert await told(service, b"{", Accept="*/*") == (400, one)
        assert await told(service, CHAT, Accept=JSON, **{"X-Priority": "?"}) == (400, both)
        # What Ollama says is Ollama's, and other routes are not concerned.
        assert await told(service, {**CHAT, "model": "nosuch"}, Accept=JSON) == (404, one)
        status, answer = await service.call("POST", "/api/generate", nowhere, headers={"Accept": JSON})
        assert (status, sorted(answer)) == (404, one)
        service.ollama.arm(Fault(kind=FaultKind.STALL, times=1, endpoint="/api/chat"))
        calling = asyncio.create_task(told(service, CHAT, Accept=JSON))
        # The job is begun before it is stored, and only what is stored can be cancelled.
        while not (await service.call("POST", "/api/v1/prompts/cancel", {}))[1]["cancelled"]:
            pass
        assert await calling == (499, both)
        service.jobs.submission.stop_accepting()
        assert await told(service, CHAT, Accept=JSON) == (503, both)
        assert await told(service, CHAT, Accept="*/*") == (503, one)


async def test_so_does_whoever_sends_a_key_known_or_not() -> None:
    both, one = ["detail", "error"], ["error"]
    async with service_with_keys() as service:
        key = str((await made_key(service, name="once", rate_limit=1))["key"])
        assert await told(service, CHAT) == (401, one)
        assert await told(service, CHAT, **{"X-Api-Key": "unknown"}) == (401, both)
        assert await told(service, CHAT, Authorization="Bearer unknown") == (401, both)
        assert await told(service, CHAT, Authorization="Bearer unknown", Accept=NDJSON) == (401, one)
        status, answer = await service.call("POST", "/api/chat", CHAT, headers={"X-Api-Key": key})
        assert (status, answer["done"]) == (200, True)
        assert await told(service, CHAT, **{"X-Api-Key": key}) == (429, both)
        assert await told(service, {**CHAT, "stream": True}, **{"X-Api-Key": key}) == (429, one)
        assert await told(service, {**CHAT, "model": "mödel"}, **ADMIN) == (404, both)


@pytest.mark.parametrize(("default", "is_streamed"), [("always", True), ("never", False)])
async def test_the_setting_goes_before_what_the_caller_is(default: str, is_streamed: bool) -> None:
    async with service_in_process({"chat.stream_default": default}, QUICK) as service:
        for accept, expected in (("*/*", is_streamed), (JSON, is_streamed), (NDJSON, True)):
            async with service.session.post("/api/chat", json=CHAT, headers={"Accept": accept}) as reply:
                assert (reply.content_type == NDJSON) == expected
        assert await told(service, {**CHAT, "model": "mödel"}, Accept=JSON) == (404, ["error"])
