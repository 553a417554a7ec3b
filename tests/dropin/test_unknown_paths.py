"""Paths that a newer Ollama may have: relayed for those who may, and nothing to everybody else."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from yarl import URL

from service.api.access.request_log import REQUEST_LOGGING
from service.api.context import POOL
from service.api.dropin.unknown import NOTED
from service.simulated import SimulatedModel, SimulatedSettings
from tests.support.access import ADMIN, headers_of, let_pass, service_with_keys
from tests.support.log_rows import written
from tests.support.running import MODELS, RunningService

COUNT_TOKENS = "/v1/messages/count_tokens"
FROM_ELSEWHERE = "hf.co/unsloth/gemma:Q4"
LATER = (
    *("/api/later", "/v1/later/thing", "/api/later/llama3.2", f"/api/later/{FROM_ELSEWHERE}/more"),
    *("/api/keys/later", "/api/v1/later", COUNT_TOKENS),
    *("/api/user/keys", "/api/web_search", "/v1/Web_Fetch/later"),
)
NOTHING = (404, "text/plain", "404 page not found")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def before_a_newer_ollama(**options: Any) -> AsyncIterator[RunningService]:
    required = options.pop("required", True)
    settings = SimulatedSettings(models=(*MODELS, SimulatedModel(FROM_ELSEWHERE)), later_paths=LATER)
    passing = {f"server.{name}": value for name, value in options.items()}
    async with service_with_keys(passing, required=required, settings=settings) as service:
        # The models are known from here on.
        await service.call("GET", "/api/tags", headers=ADMIN)
        yield service


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[RunningService]:
    async with before_a_newer_ollama() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def passing() -> AsyncIterator[RunningService]:
    """Here the keys of users may pass too."""
    async with before_a_newer_ollama(pass_unknown=True) as running:
        yield running


async def told(
    service: RunningService, method: str, path: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, str, str]:
    """Status, media type and text of the reply to a path that is sent as it is."""
    address = URL(service.url + path, encoded=True)
    async with service.session.request(method, address, data=body, headers=headers, allow_redirects=False) as response:
        return response.status, response.content_type, await response.text()


def came(service: RunningService) -> int:
    """How many requests for later paths have come to the Ollama."""
    return sum(service.ollama.observations.requests[path] for path in LATER)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/later?model=x&y=%2F", None),
        ("POST", "/v1/later/thing", b'{"model": "llama3.2"}'),
        ("PUT", "/api/later", b"\x00no JSON"),
        ("DELETE", "/api/later", None),
        ("POST", COUNT_TOKENS, b'{"model": "llama3.2", "messages": []}'),
        ("POST", "/api/later/llama3.2", b""),
    ],
)
async def test_an_admins_call_is_relayed_as_it_is(
    service: RunningService, method: str, path: str, body: bytes | None
) -> None:
    before = came(service)
    status, answer = await service.call(method, str(URL(path, encoded=True)), body, headers=ADMIN)
    assert status == 200
    assert answer == {"method": method, "query": URL(path).query_string, "body": (body or b"").decode()}
    assert came(service) == before + 1


async def test_what_ollama_does_not_have_either_is_answered_by_ollama(service: RunningService) -> None:
    assert await told(service, "POST", "/api/nothing", ADMIN, b"{}") == NOTHING


async def test_everybody_else_finds_nothing(service: RunningService) -> None:
    user, before = await headers_of(service), came(service)
    for headers in ({}, user, {"Authorization": "Bearer garbage"}, {"User-Agent": "ollama/0.33.0"}):
        for method, path in (("GET", "/api/later"), ("POST", "/v1/later/thing"), ("GET", COUNT_TOKENS)):
            assert await told(service, method, path, headers, b"{}") == NOTHING
    assert came(service) == before


async def test_tokens_are_counted_for_whoever_may_use_the_model_where_ollama_can(service: RunningService) -> None:
    user, limited = await headers_of(service), await headers_of(service, models=["mistral"])
    body = b'{"model": "llama3.2", "messages": []}'
    status, answer = await service.call("POST", COUNT_TOKENS, body, headers=user)
    assert (status, answer["body"]) == (200, body.decode())
    before = came(service)
    assert (await service.call("POST", COUNT_TOKENS, body, headers=limited))[0] == 403
    assert (await service.call("POST", COUNT_TOKENS, b'{"model": "mistral", "Model": "llama3.2"}', headers=limited))[
        0
    ] == 400
    for headers in ({}, {"Authorization": "Bearer garbage"}):
        assert await told(service, "POST", COUNT_TOKENS, headers, body) == NOTHING
    assert came(service) == before


async def test_where_no_ollama_can_count_tokens_or_none_answers_there_is_nothing() -> None:
    async with service_with_keys(required=False) as service:
        body = b'{"model": "llama3.2", "messages": []}'
        assert await told(service, "POST", COUNT_TOKENS, {}, body) == NOTHING
        await service.ollama.stop()
        assert await told(service, "POST", COUNT_TOKENS, {}, body) == NOTHING


async def test_whoever_shows_no_key_finds_nothing_where_none_are_required() -> None:
    async with before_a_newer_ollama(required=False, pass_unknown=True) as service:
        assert await told(service, "GET", "/api/later", {}) == NOTHING
        assert (await told(service, "GET", "/api/later", ADMIN))[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        # What is Ollama's and known here, in another spelling.
        "/api/later%2F..%2Fdelete", "/api/later/%2e%2e/delete", "/api/later%2f%2e%2e%2fdelete", "/v1/%2e%2e/api/delete",
        "/api%2Fdelete", "/api/%2Fdelete", "/api/delete%2F", "/api/delete%2F.", "/api/Delete", "/API/delete",
        "/api/later%5C..%5Cdelete", "/api/later%252F..%252Fdelete", "/api/delete%00", "/api/delete%20", "/api/delete;x",
        "/api/d%C4%B1elete", "/api/%ff",
        # What is ours.
        "/api/v1/later", "/api/v1", "/api/V1/later", "/api/%76%31/later", "/api/later%2F..%2Fv1%2Flater",
        "/api/keys/later", "/api/stats/later", "/later", "/api", "/v1", "/api/" + "x" * 700,
    ],
)  # fmt: skip
async def test_nothing_that_is_known_is_reached_by_another_spelling(service: RunningService, path: str) -> None:
    counts = service.ollama.observations.requests
    before, noted = (came(service), counts["/api/delete"]), service.app[NOTED].copy()
    status, _, text = await told(service, "DELETE", path, ADMIN, b'{"model": "nosuch"}')
    assert status == 404, text
    assert (came(service), counts["/api/delete"]) == before
    assert service.app[NOTED] == noted


async def test_a_path_is_sent_in_the_spelling_in_which_it_was_judged(service: RunningService) -> None:
    for path in ("/api/l%61ter", "/api%2Flater", "/v1/x%2F..%2F..%2Fapi%2Flater", "/api/later%2F"):
        assert (await told(service, "GET", path, ADMIN))[0] == 200


async def test_a_wrong_method_of_a_known_path_stays_one(service: RunningService) -> None:
    for method, path in (("GET", "/api/chat"), ("POST", "/api/tags"), ("PUT", "/v1/models/x"), ("HEAD", "/api/status")):
        status, _, _ = await told(service, method, path, ADMIN)
        assert status == 405


async def test_a_page_of_another_origin_may_read_the_reply(service: RunningService) -> None:
    headers = {**ADMIN, "Origin": "https://chat.example.org"}
    async with service.session.get("/api/later", headers=headers) as response:
        assert response.headers["Access-Control-Allow-Origin"] == "https://chat.example.org"


async def test_no_path_becomes_a_label_of_the_metrics(service: RunningService) -> None:
    await told(service, "GET", "/api/later", ADMIN)
    async with service.session.get("/metrics", headers=ADMIN) as response:
        text = await response.text()
    assert 'route="none"' in text
    assert "later" not in text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", "/api/later?page=2", None), ("POST", "/v1/later/thing", b' {"x": [1, {"name": "a tool"}]}')],
)
async def test_a_key_may_pass_where_the_operator_says_so(
    passing: RunningService, method: str, path: str, body: bytes | None
) -> None:
    status, _, text = await told(passing, method, path, await headers_of(passing), body)
    assert status == 200, text


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/api/later", b"[]", 400),
        ("POST", "/api/later", b"no JSON", 400),
        ("POST", "/api/later", b'{"x": 1, "X": 2}', 400),
        ("POST", "/api/later", b'{"num_ctx": 1e400}', 400),
        ("POST", "/api/later", b'{"x": [{"y": 1, "Y": 2}]}', 400),
        ("POST", "/api/later", b'{"x": {"y": {"z": 1, "z": 2}}}', 400),
        ("POST", "/api/later", b'{"x": [' + b"{}," * 100_001 + b"{}]}", 400),
        ("POST", "/api/later", b'{"model": "llama3.2"}', 404),
        ("POST", "/api/later", b'{"MODEL": ""}', 404),
        ("POST", "/api/later", b'{"Name": "x"}', 404),
        ("POST", "/api/later", b'{"\\u006dodel": "x"}', 404),
        ("POST", "/api/later", b'{"x": [{"y": {"Model": "x"}}]}', 404),
        ("POST", "/api/later", b'{"x": ["y", "LLAMA3.2:latest"]}', 404),
        ("POST", "/api/later", b'{"models": ["x"]}', 404),
        ("POST", "/api/later", b'{"x": [{"base_Model": "x"}]}', 404),
        ("POST", "/api/later", b'{"x": {"llama3.2": 1}}', 404),
        ("POST", "/api/later?Model=x", b"{}", 404),
        ("POST", "/api/later?models=x", b"{}", 404),
        ("POST", "/api/later?x=1;alias=y", b"{}", 404),
        ("GET", "/api/later?llama3.2", None, 404),
        ("GET", "/api/later?x=1&%20Llama3.2%3Alatest=", None, 404),
        ("GET", "/api/later/llama3.2", None, 404),
        ("GET", f"/api/later/{FROM_ELSEWHERE}/more", None, 404),
        ("GET", "/api/later?which=llama3.2:latest", None, 404),
        ("DELETE", "/api/later", None, 404),
        ("PUT", "/api/later", b"{}", 404),
        ("GET", "/api/user/keys", None, 404),
        ("POST", "/api/web_search", b'{"query": "x"}', 404),
        ("POST", "/v1/Web_Fetch/later", b"{}", 404),
        ("GET", COUNT_TOKENS, b'{"model": "llama3.2"}', 404),
        ("DELETE", COUNT_TOKENS, b'{"messages": []}', 404),
    ],
)
async def test_what_names_a_model_changes_something_or_is_no_object_is_not_for_such_a_key(
    passing: RunningService, method: str, path: str, body: bytes | None, expected: int
) -> None:
    before = came(passing)
    status, media_type, text = await told(passing, method, path, await headers_of(passing), body)
    assert status == expected, text
    assert media_type == ("text/plain" if expected == 404 else "application/json")
    assert came(passing) == before


async def test_what_was_read_as_json_is_json_to_the_backend(passing: RunningService) -> None:
    user, body = await headers_of(passing), '{"x": "&model=llama3.2&"}'
    for path, text in (("/api/later", body), (COUNT_TOKENS, '{"messages": "&model=llama3.2&"}')):
        for kind in ("application/x-www-form-urlencoded", "Application/X-WWW-form-urlencoded; charset=utf-8"):
            status, answer = await passing.call("POST", path, text.encode(), headers={**user, "Content-Type": kind})
            assert (status, answer) == (200, {"method": "POST", "query": "", "body": text})


async def test_such_a_key_names_no_model_that_the_configuration_hides() -> None:
    async with before_a_newer_ollama(pass_unknown=True) as service:
        user, before = await headers_of(service), came(service)
        (backend,) = service.app[POOL]
        hiding = backend.config.model_copy(update={"models": ("thinker",)})
        backend.reconfigure(hiding, max_swap_wait_ms=backend.placement.max_swap_wait_ms)
        assert backend.hides("llama3.2:latest")
        for path, body in (("/api/later", b'{"x": "llama3.2"}'), ("/api/later/llama3.2", b"{}")):
            assert await told(service, "POST", path, user, body) == NOTHING
        assert came(service) == before


async def test_such_a_key_names_no_model_that_is_new() -> None:
    async with before_a_newer_ollama(pass_unknown=True) as service:
        user, before = await headers_of(service), came(service)
        for number, (query, body) in enumerate((("", b'{"x": "%b"}'), ("?x=%b", b"{}"))):
            name = f"new-{number}"
            copying = {"source": "llama3.2", "destination": name}
            async with service.session.post(f"{service.ollama.url}/api/copy", json=copying) as copied:
                assert copied.status == 200
            let_pass(service, 2_000)
            path = "/api/later" + query.replace("%b", name)
            assert await told(service, "POST", path, user, body.replace(b"%b", name.encode())) == NOTHING
        assert came(service) == before


async def test_such_a_call_counts_as_a_request_and_is_written_down(passing: RunningService) -> None:
    user = await headers_of(passing, rate_limit=1)
    assert (await told(passing, "POST", "/api/later", user, b"[]"))[0] == 400
    assert (await told(passing, "POST", "/api/later", user, b"{}"))[0] == 200
    assert (await told(passing, "GET", "/api/later", user))[0] == 429
    log = passing.app[REQUEST_LOGGING].log
    await log.flush()
    rows = (await written(log._store._database))[-3:]
    assert [(row.method, row.endpoint, row.status_code, row.job_id) for row in rows] == [
        ("POST", "/api/later", 400, None),
        ("POST", "/api/later", 200, None),
        ("GET", "/api/later", 429, None),
    ]


async def test_the_log_tells_of_each_path_once_and_of_so_many(
    service: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    noted = service.app[NOTED]
    noted.clear()
    with caplog.at_level(logging.INFO, "service.api.dropin.unknown"):
        for path in ("/api/later", "/api/later?x=1", "/v1/later/thing", "/api/later"):
            await told(service, "GET", path, ADMIN)
        assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
            "GET /api/later",
            "GET /v1/later/thing",
        ]
        noted.update(f"/api/{number}" for number in range(198))
        caplog.clear()
        for number in range(3):
            await told(service, "GET", f"/api/more/{number}", ADMIN)
        assert [record.getMessage() for record in caplog.records] == [
            "further paths that are not known here are relayed, and no longer named"
        ]
        assert len(noted) == 201


async def test_no_backend_is_told_as_such() -> None:
    async with before_a_newer_ollama() as service:
        await service.ollama.stop()
        status, answer = await service.call("GET", "/api/later", headers=ADMIN)
        assert status == 503
        assert "error" in answer
