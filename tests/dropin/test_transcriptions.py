"""Sounds are written down in their turn: their forms go to Ollama byte for byte, whatever happens to the service."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from service.api.context import BODY_ROOM
from service.simulated import Fault, FaultKind
from tests.dropin.test_callers import until_listed
from tests.dropin.test_differential import OPTIONS, SETTINGS
from tests.support.access import ADMIN, headers_of, service_with_keys
from tests.support.drop_in import Seen, seen
from tests.support.forms import PATH, SOUND, field, file, form, form_type, part, speech
from tests.support.running import RunningService, service_in_process

TYPE = {"Content-Type": form_type()}
ASKED: dict[str, Any] = {"model": "tiny1", "prompt": "names: Ada"}
WORDS = replace(SETTINGS, answer_style="echo")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process(OPTIONS, WORDS) as running:
        yield running


async def asked(service: RunningService, body: bytes, headers: dict[str, str] | None = None, query: str = "") -> Seen:
    return await seen(service.session, "POST", PATH + query, body, {**TYPE, **(headers or {})})


async def arrived(service: RunningService) -> tuple[bytes, str]:
    """The newest form that has come to the backend, and its type."""
    newest = service.ollama.observations.seen[-1]
    return newest.body, newest.headers["Content-Type"]


FORMS = [
    speech(**ASKED),
    speech(**ASKED, response_format="text"),
    speech(**ASKED, response_format="verbose_json", language="de", temperature="0"),
    speech(model="TINY1:latest", sound=SOUND * 1000),
    speech(model="nosuch"),
    speech(model="embed"),
    form(field("model", "tiny1")),
    form(field("model", "tiny1"), file(b"")),
    form(field("Model", "tiny1"), file()),
    form(file()),
    form(field("model", ""), file()),
]


@pytest.mark.asyncio(loop_scope="module")
async def test_whatever_a_form_says_the_answer_is_ollamas(service: RunningService) -> None:
    async with aiohttp.ClientSession(service.ollama.url) as direct:
        for body in FORMS:
            expected = await seen(direct, "POST", PATH, body, TYPE)
            assert (await asked(service, body)).comparable == expected.comparable, body[:300]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_client_of_openais_is_answered(service: RunningService) -> None:
    form_of_aiohttp = aiohttp.FormData({"model": "tiny1", "prompt": "hello"})
    form_of_aiohttp.add_field("file", SOUND, filename="speech.wav", content_type="audio/wav")
    async with service.session.post(PATH, data=form_of_aiohttp) as reply:
        assert (reply.status, (await reply.json(content_type=None))["text"]) == (200, "hello")
        job_id = reply.headers["X-Job-Id"]
    _, told = await service.call("GET", f"/api/v1/prompt/{job_id}/request")
    shown = {"filename": "speech.wav", "content_type": "audio/wav", "size": len(SOUND)}
    assert told == {"model": "tiny1", "prompt": "hello", "file": shown}
    _, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result?wait=30")
    assert (result["result"], result["prompt"]) == ("hello", "hello")


@pytest.mark.asyncio(loop_scope="module")
async def test_its_prompt_is_what_a_search_finds(service: RunningService) -> None:
    given = await asked(service, speech(model="tiny1", prompt="a needle in it"))
    _, found = await service.call("GET", "/api/v1/prompts", params={"q": "needle"})
    assert [row["id"] for row in found["prompts"]] == [given.headers["X-Job-Id"]]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_large_form_is_sent_as_it_came_and_shown_without_its_bytes(service: RunningService) -> None:
    body = speech(model="tiny1", prompt="large", sound=SOUND * 3500)
    given = await asked(service, body)
    assert given.status == 200
    sent, content_type = await arrived(service)
    assert (body.startswith(sent), len(sent), content_type) == (True, 65_536, form_type())
    _, told = await service.call("GET", f"/api/v1/prompt/{given.headers['X-Job-Id']}/request")
    assert told["file"]["size"] == len(SOUND * 3500)
    assert service.app[BODY_ROOM].held == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_a_packed_form_is_unpacked_on_the_way(service: RunningService) -> None:
    body = speech(**ASKED)
    assert (await asked(service, gzip.compress(body), {"Content-Encoding": "gzip"})).status == 200
    assert await arrived(service) == (body, form_type())


@pytest.mark.parametrize(
    ("body", "field_name", "words"),
    [
        (form(field("model", "tiny1"), field("model", "other"), file()), "model", "'model' occurs twice; send it once"),
        (form(field("prompt", "x"), field("prompt", "x"), file()), "prompt", "'prompt' occurs twice; send it once"),
        (speech(**ASKED)[:-8], None, "failed to parse multipart form: "),
        (b'{"model":"tiny1"}', None, "failed to parse multipart form: "),
        (form(part('form-data; name="model"', b"=74", "Content-Transfer-Encoding: quoted-printable")), None, "failed"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_form_that_could_be_read_in_two_ways_is_refused(
    service: RunningService, body: bytes, field_name: str | None, words: str
) -> None:
    before = service.ollama.observations.requests[PATH]
    status, told = await service.call("POST", PATH, body, headers=TYPE)
    error = told["error"]
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", field_name)
    assert error["message"].startswith(words)
    assert service.ollama.observations.requests[PATH] == before


@pytest.mark.asyncio(loop_scope="module")
async def test_what_ollama_would_take_from_the_query_is_refused_there(service: RunningService) -> None:
    for query in ("?model=tiny2", "?%6dodel=tiny2", "?response_format=text"):
        given = await asked(service, speech(**ASKED), query=query)
        assert (given.status, b"stands in the query" in given.body) == (400, True)
    assert (await asked(service, speech(**ASKED), query="?api-version=1&Model=x")).status == 200


@pytest.mark.asyncio(loop_scope="module")
async def test_a_form_for_which_two_types_are_given_is_refused(service: RunningService) -> None:
    headers = [("Content-Type", form_type()), ("Content-Type", form_type("other"))]
    async with service.session.post(PATH, data=speech(**ASKED), headers=headers) as reply:
        assert (reply.status, "'Content-Type'" in await reply.text()) == (400, True)


@pytest.mark.asyncio(loop_scope="module")
async def test_it_is_tried_again_with_the_same_bytes(service: RunningService) -> None:
    body = speech(model="tiny1", prompt="again")
    service.ollama.arm(Fault(kind=FaultKind.ERROR, status=500, message="passes", endpoint=PATH, times=1))
    given = await asked(service, body)
    assert (given.status, (await service.until(given.headers["X-Job-Id"], "completed"))["attempt"]) == (200, 2)
    first, second = list(service.ollama.observations.seen)[-2:]
    assert first.body == second.body == body


@pytest.mark.parametrize("response_format", ["json", "text"])
@pytest.mark.asyncio(loop_scope="module")
async def test_an_answer_whose_error_ollama_has_swallowed_is_no_answer(
    service: RunningService, response_format: str
) -> None:
    fault = Fault(kind=FaultKind.ERROR_LINE, after_tokens=1, endpoint=PATH)
    armed = service.ollama.arm(fault)
    given = await asked(service, speech(model="tiny1", prompt="two words", response_format=response_format))
    armed.remove()
    assert (given.status, b"before it was complete" in given.body) == (500, True)


@pytest.mark.asyncio(loop_scope="module")
async def test_who_sends_it_again_with_its_key_gets_the_same_reply_whatever_the_boundary(
    service: RunningService,
) -> None:
    key = {"Idempotency-Key": "a sound"}
    first = await asked(service, speech(**ASKED), key)
    other = {"Content-Type": form_type("another"), **key}
    again = await asked(service, speech("another", **ASKED), other)
    assert (again.comparable, again.headers["Idempotent-Replayed"]) == (first.comparable, "true")
    assert again.headers["X-Job-Id"] == first.headers["X-Job-Id"]
    assert (await asked(service, speech(**ASKED, language="de"), key)).status == 422


async def test_it_is_taken_up_again_after_a_restart_with_the_same_bytes(tmp_path: Path) -> None:
    headers = {"X-On-Disconnect": "finish", "Idempotency-Key": "once"}
    body = speech(**ASKED)
    async with service_in_process(OPTIONS, WORDS, folder=tmp_path) as service:
        service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint=PATH))
        caller = asyncio.create_task(asked(service, body, headers))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        await service.stop()
        await asyncio.wait((caller,))
    async with service_in_process(OPTIONS, WORDS, folder=tmp_path) as service:
        given = await asked(service, speech("another", **ASKED), {**headers, "Content-Type": form_type("another")})
        assert (given.status, given.body) == (200, b'{"text":"names: Ada"}\n')
        assert await arrived(service) == (body, form_type())
        assert service.ollama.observations.requests[PATH] == 1


async def test_who_leaves_takes_its_job_along() -> None:
    async with service_in_process(OPTIONS, WORDS) as service:
        service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint=PATH))
        caller = asyncio.create_task(asked(service, speech(**ASKED)))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        caller.cancel()
        await until_listed(service, "cancelled")
        await service.ollama.observations.until(lambda seen: seen.closed_connections == 1)


async def test_its_model_is_one_that_its_key_may_use_and_nothing_is_read_before_there_is_a_key() -> None:
    options: dict[str, Any] = {"server.max_body": 4096}
    async with service_with_keys(options, settings=WORDS) as service:
        limited = await headers_of(service, models=["tiny2"], rate_limit=2)
        refused = await asked(service, speech(**ASKED), limited)
        assert (refused.status, b"may not use the model" in refused.body) == (403, True)
        assert (await asked(service, speech(model="tiny2"), {**limited, "X-Priority": "low"})).status == 200
        # What names no model is given back, as everything is of which no job comes.
        assert (await asked(service, form(file()), limited)).status == 400
        assert (await asked(service, speech(model="tiny2"), limited)).status == 200
        assert (await asked(service, speech(model="tiny2"), limited)).status == 429
        assert (await asked(service, b"no form")).status == 401
        assert (await asked(service, speech(model="tiny1", sound=SOUND * 20), ADMIN)).status == 413
        assert service.ollama.observations.requests[PATH] == 2
