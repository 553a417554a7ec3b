"""The endpoints that only some Ollamas have: pictures until 0.32.6, decisions from 0.35 on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from service.api.context import POOL
from service.simulated import Fault, FaultKind, SimulatedModel
from tests.dropin.test_differential import OPTIONS, SETTINGS
from tests.simulated.test_decisions import ASKED
from tests.support.drop_in import seen
from tests.support.forms import PATH, form_type, speech
from tests.support.raw_server import whole
from tests.support.running import RunningService, service_in_process
from tests.support.scripted_ollama import MODEL, scripted

MODELS = (*SETTINGS.models, SimulatedModel("nimble", ("decision",), family="lfm2"))
DRAW, EDIT, DECIDE = "/v1/images/generations", "/v1/images/edits", "/v1/systemone"
PICTURE = {"model": "painter", "prompt": "a cat", "size": "1024x1024"}
CHANGED = {**PICTURE, "image": "data:image/png;base64,aGk="}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def older() -> AsyncIterator[RunningService]:
    async with service_in_process(OPTIONS, replace(SETTINGS, models=MODELS)) as service:
        yield service


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def newer() -> AsyncIterator[RunningService]:
    async with service_in_process(OPTIONS, replace(SETTINGS, models=MODELS, version="0.40.0")) as service:
        yield service


@pytest.mark.parametrize(("path", "body"), [(DRAW, PICTURE), (EDIT, CHANGED)])
async def test_a_picture_is_ollamas_and_its_bytes_are_not_in_the_result(
    older: RunningService, path: str, body: dict[str, Any]
) -> None:
    async with aiohttp.ClientSession(older.ollama.url) as direct:
        expected = await seen(direct, "POST", path, body)
    given = await seen(older.session, "POST", path, body)
    assert (given.comparable, given.status, len(given.body) > 1_300_000) == (expected.comparable, 200, True)
    _, result = await older.call("GET", f"/api/v1/prompt/{given.headers['X-Job-Id']}/result?wait=30")
    assert (result["status"], result["result"], result["prompt"]) == ("completed", "", "a cat")


async def test_what_ollama_swallows_while_it_draws_is_told_as_an_error(older: RunningService) -> None:
    armed = older.ollama.arm(Fault(kind=FaultKind.ERROR_LINE, after_tokens=1, endpoint=DRAW))
    given = await seen(older.session, "POST", DRAW, PICTURE)
    armed.remove()
    assert (given.status, b"before it was complete" in given.body) == (500, True)


async def test_decisions_are_ollamas_and_their_answers_are_the_result(newer: RunningService) -> None:
    async with aiohttp.ClientSession(newer.ollama.url) as direct:
        expected = await seen(direct, "POST", DECIDE, ASKED)
    given = await seen(newer.session, "POST", DECIDE, ASKED)
    assert (given.comparable, given.status) == (expected.comparable, 200)
    _, result = await newer.call("GET", f"/api/v1/prompt/{given.headers['X-Job-Id']}/result?wait=30")
    assert json.loads(result["result"]) == json.loads(given.body)["answers"]
    assert (result["prompt_tokens"] > 0, result["completion_tokens"]) == (True, 3)
    assert result["prompt"] == json.dumps(ASKED["state"])


@pytest.mark.parametrize(
    "body",
    [
        {**ASKED, "model": "nosuch"},
        {**ASKED, "model": "tiny1"},
        {**ASKED, "state": 5},
        {**ASKED, "questions": {}},
        {**ASKED, "keep_alive": "5"},
        {**ASKED, "keep_alive": 0},
        {**ASKED, "state": "x" * 70_000},
        {"state": "x"},
    ],
    ids=range(8),
)
async def test_errors_of_decisions_are_ollamas_in_its_own_shape(newer: RunningService, body: dict[str, Any]) -> None:
    async with aiohttp.ClientSession(newer.ollama.url) as direct:
        expected = await seen(direct, "POST", DECIDE, body)
    assert (await seen(newer.session, "POST", DECIDE, body)).comparable == expected.comparable


async def test_errors_of_ours_have_that_shape_too(newer: RunningService) -> None:
    for body, headers in ((b"{", {}), (ASKED, {"X-Priority": "urgent"}), (b'{"model":"m","model":"n"}', {})):
        given = await seen(newer.session, "POST", DECIDE, body, headers)
        assert (given.status, list(json.loads(given.body))) == (400, ["error"])


@pytest.mark.parametrize(("path", "body"), [(DRAW, PICTURE), (EDIT, CHANGED), (DECIDE, {**ASKED, "model": "tiny1"})])
async def test_a_backend_that_lacks_the_route_says_so_itself_once_and_keeps_its_good_name(
    older: RunningService, newer: RunningService, path: str, body: dict[str, Any]
) -> None:
    service = older if path == DECIDE else newer
    async with aiohttp.ClientSession(service.ollama.url) as direct:
        expected = await seen(direct, "POST", path, body)
    given = await seen(service.session, "POST", path, body)
    assert given.comparable == expected.comparable == (404, "text/plain", b"404 page not found", True)
    job = await service.until(given.headers["X-Job-Id"], "failed")
    assert (job["attempt"], job["error"]["code"]) == (1, "refused")


async def test_such_refusals_open_no_breaker() -> None:
    gone = whole(b"404 page not found", status="404 Not Found", content_type="text/plain")
    body = {**PICTURE, "model": MODEL}
    async with scripted(gone, breaker__failure_threshold=1) as it:
        for _ in range(3):
            assert (await seen(it.service.session, "POST", DRAW, body)).status == 404
        headers = {"Content-Type": form_type()}
        assert (await seen(it.service.session, "POST", PATH, speech(model=MODEL), headers)).status == 404
        assert it.given == [DRAW, DRAW, DRAW, PATH]
        [backend] = it.service.app[POOL]
        assert (backend.breakers.server.faults, backend.breakers.failing) == (0, {})


WORDS: list[tuple[str, bytes, str | None]] = [
    ("text/plain; charset=utf-8", b"Blue.", "Blue."),
    ("text/plain", b"", ""),
    ("text/vtt", b"WEBVTT\n\n00:00.000 --> 00:01.000\nBlue.\n", "WEBVTT\n\n00:00.000 --> 00:01.000\nBlue.\n"),
    ("application/x-ndjson", b"", None),
    ("application/x-ndjson", b'{"text":"Bl', None),
    ("application/x-ndjson", b"{inaudible}", "{inaudible}"),
    ("application/json", b'{"text":"","segments":[]}', ""),
    ("application/json", b'{"segments":[]}', None),
]
"""What a transcription may be, by its media type, and the text in it; None: it is not whole, and asked for again."""


async def test_words_are_taken_for_whole_where_they_can_be() -> None:
    replies = [
        whole(reply, content_type=kind) for kind, reply, text in WORDS for _ in range(1 if text is not None else 2)
    ]
    async with scripted(*replies) as it:
        for kind, reply, text in WORDS:
            given = await seen(it.service.session, "POST", PATH, speech(model=MODEL), {"Content-Type": form_type()})
            _, result = await it.service.call("GET", f"/api/v1/prompt/{given.headers['X-Job-Id']}/result?wait=30")
            if text is None:
                assert (given.status, result["error"]["code"], result["attempt"]) == (500, "truncated", 2)
            else:
                assert (given.status, given.body, given.content_type) == (200, reply, kind)
                assert (result["result"], result["attempt"]) == (text, 1)
        assert len(it.given) == len(replies)
