"""Whatever a client sends is answered with a 4xx in Corral's shape and a message that names the field."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from service.api.http.bodies import parse_object
from service.errors import InvalidRequestError
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

MOST_BYTES = 20_000
UPGRADE = (
    b"GET /api/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_service() -> AsyncIterator[RunningService]:
    """One for all: what is refused leaves nothing behind."""
    async with service_in_process({"server.max_body": MOST_BYTES}) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def service(shared_service: RunningService, caplog: pytest.LogCaptureFixture) -> AsyncIterator[RunningService]:
    yield shared_service
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


def check_problem(status: int, headers: Any, problem: dict[str, Any]) -> None:
    """RFC 9457, and the message once more under the name that most clients look for."""
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["Cache-Control"] == "no-store"
    assert problem["status"] == status
    assert problem["error"] == problem["detail"]
    assert {"type", "title"} <= set(problem)


async def refused(service: RunningService, path: str, data: bytes, **options: Any) -> tuple[int, dict[str, Any]]:
    async with service.session.post(path, data=data, **options) as response:
        problem = json.loads(await response.read())
        check_problem(response.status, response.headers, problem)
        return response.status, problem


@pytest.mark.parametrize("path", ["/api/v1/prompt", "/generate"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello", "not JSON"),
        (b'{"prompt": "x"', "not JSON"),
        (b'{"prompt": "x"} more', "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"1", "must be a JSON object"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b'{"prompt": "\xed\xa0\x80"}', "not UTF-8"),
        ('{"prompt": "x"}'.encode("utf-16"), "not UTF-8"),
        (b"[" * 5_000 + b"]" * 5_000, "nested"),
        (b'{"prompt": "a\x01b"}', "not JSON"),
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(
    service: RunningService, path: str, data: bytes, words: str
) -> None:
    status, problem = await refused(service, path, data)
    assert status == 400
    assert words in problem["error"]


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ("{}", "prompt", "is required"),
        ('{"prompt": null}', "prompt", "prompt: "),
        ('{"prompt": ""}', "prompt", "must not be empty"),
        ('{"prompt": " \\n"}', "prompt", "must not be empty"),
        ('{"prompt": 5}', "prompt", "must be a string (got 5)"),
        ('{"prompt": ["x"]}', "prompt", "must be a string (got a list)"),
        ('{"prompt": {"x": 1}}', "prompt", "must be a string (got an object)"),
        ('{"prompt": true}', "prompt", "must be a string (got true)"),
        ('{"promt": "x"}', "promt", "did you mean prompt"),
        ('{"prompt": "x", "zzz": 1}', "zzz", "no such field"),
        ('{"prompt": "x", "priority": "urgent"}', "priority", "must be one of high, normal, low (got 'urgent')"),
        ('{"prompt": "x", "priority": 2}', "priority", "must be one of high, normal, low (got 2)"),
        ('{"prompt": "x", "priority": true}', "priority", "must be one of high, normal, low"),
        ('{"prompt": "x", "priority": 1.0}', "priority", "must be one of high, normal, low"),
        ('{"prompt": "x", "model": 7}', "model", "must be a string"),
        ('{"prompt": "x", "model": "a b"}', "model", "without spaces"),
        ('{"prompt": "x", "model": "%s"}' % ("m" * 401), "model", "at most 400"),
        ('{"prompt": "x", "options": []}', "options", "must be an object"),
        ('{"prompt": "x", "options": {"temperature": NaN}}', "options.temperature", "finite"),
        ('{"prompt": "x", "options": {"a": [0, -Infinity]}}', "options.a[1]", "finite"),
        ('{"prompt": "x", "options": {"seed": 1e999}}', "options.seed", "finite"),
        ('{"prompt": "x", "options": {"seed": 9223372036854775808}}', "options.seed", "63 bits"),
        ('{"prompt": "x", "options": {"seed": -9223372036854775809}}', "options.seed", "63 bits"),
        ('{"prompt": "x", "options": {"seed": %s}}' % ("9" * 5000), "options.seed", "63 bits"),
        ('{"prompt": "x", "options": {"a": %s}}' % ("[" * 101 + "]" * 101), "options.a[0][0][0]…", "levels deep"),
        ('{"prompt": "x", "options": {"a": %s}}' % ("[" * 9000 + "]" * 9000), "options", "levels deep"),
        ('{"prompt": "a\\u0000b"}', "prompt", "NUL"),
        ('{"prompt": "a\\ud800b"}', "prompt", "lone surrogate"),
        ('{"prompt": "x", "options": {"\\u0000": 1}}', "options.\0", "NUL"),
        ('{"prompt": "x", "options": {"\\udc00": 1}}', "options.?", "lone surrogate"),
        ('{"prompt": "x", "options": {"stop": ["\\udfff"]}}', "options.stop[0]", "lone surrogate"),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/prompt", "/generate"])
async def test_a_field_that_cannot_be_taken_is_named(
    service: RunningService, path: str, body: str, field: str, words: str
) -> None:
    status, problem = await refused(service, path, body.encode())
    assert status == 400
    assert problem["field"] == field
    assert problem["error"].startswith(f"{field.rstrip('…')}") or field == "options"
    assert words in problem["error"]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"prompt": "x", "messages": [{"role": "user", "content": "y"}]}, "messages", "not both"),
        ({"messages": []}, "messages", "must not be empty"),
        ({"messages": "hello"}, "messages", "must be a list"),
        ({"messages": [1]}, "messages[0]", "must be an object"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "is required"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content", "must be a string"),
        ({"messages": [{"role": "user", "content": "x"}], "images": ["aGk="]}, "images", "belong into"),
        ({"prompt": "x", "tools": []}, "tools", "only a chat"),
        ({"prompt": "x", "images": "aGk="}, "images", "must be a list"),
        ({"prompt": "x", "images": ["data:image/png;base64,aGk="]}, "images[0]", "without"),
        ({"prompt": "x", "images": ["aGk= ", 1]}, "images[0]", "base64"),
        ({"prompt": "x", "images": ["ä"]}, "images[0]", "base64"),
        ({"prompt": "x", "think": "a lot"}, "think", "must be true, false or one of"),
        ({"prompt": "x", "format": "xml"}, "format", 'must be "json" or'),
        ({"prompt": "x", "keep_alive": "5"}, "keep_alive", "duration"),
        ({"prompt": "x", "keep_alive": True}, "keep_alive", "duration"),
        ({"prompt": "x", "system": 1}, "system", "must be a string"),
    ],
)
async def test_a_prompt_whose_fields_do_not_fit_is_refused(
    service: RunningService, fields: dict[str, Any], field: str, words: str
) -> None:
    status, problem = await refused(service, "/api/v1/prompt", json.dumps(fields).encode())
    assert (status, problem["field"]) == (400, field)
    assert words in problem["error"]


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b'{"prompt": ' + b"[" * 100_000]
)
async def test_nesting_without_end_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="levels deep"):
        parse_object(data)


async def test_what_looks_odd_and_is_right_is_taken(service: RunningService) -> None:
    for data, headers in (
        (b'\xef\xbb\xbf{"prompt": "with a byte order mark"}', {}),
        (b'{"prompt": "\\ud83d\\ude00 a pair of surrogates"}', {}),
        ('{"prompt": "ünïcödé"}'.encode(), {"Content-Type": "text/plain; charset=latin-1"}),
        (b'{"prompt": "x", "options": {"seed": 9223372036854775807, "t": 1e99}}', {"Content-Type": "nonsense"}),
        (gzip.compress(b'{"prompt": "compressed"}'), {"Content-Encoding": "gzip"}),
    ):
        async with service.session.post("/api/v1/prompt", data=data, headers=headers) as response:
            assert response.status == 202, await response.text()


async def test_a_body_beyond_the_limit_is_refused(service: RunningService) -> None:
    large = json.dumps({"prompt": "x" * MOST_BYTES}).encode()
    status, problem = await refused(service, "/api/v1/prompt", large)
    assert status == 413
    assert str(MOST_BYTES) in problem["error"]

    async def pieces() -> AsyncIterator[bytes]:
        yield large

    async with service.session.post("/api/v1/prompt", data=pieces()) as response:
        assert response.status == 413
    bomb = gzip.compress(b" " * 100 * MOST_BYTES)
    assert len(bomb) < MOST_BYTES
    status, _ = await refused(service, "/api/v1/prompt", bomb, headers={"Content-Encoding": "gzip"})
    assert status == 413


@pytest.mark.parametrize(("encoding", "status"), [("gzip", 400), ("deflate", 400), ("br", 415), ("zstd", 400)])
async def test_an_encoding_that_does_not_fit_is_refused(service: RunningService, encoding: str, status: int) -> None:
    headers = {"Content-Encoding": encoding}
    async with service.session.post("/api/v1/prompt", data=b'{"prompt": "plain"}', headers=headers) as response:
        assert response.status == status, await response.text()


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/v1/prompts?page=0", "page"),
        ("/api/v1/prompts?page=-1", "page"),
        ("/api/v1/prompts?page=x", "page"),
        ("/api/v1/prompts?page=1.5", "page"),
        ("/api/v1/prompts?page=99999999999999999999999", "page"),
        ("/api/v1/prompts?page_size=0", "page_size"),
        ("/api/v1/prompts?page_size=101", "page_size"),
        ("/api/v1/prompts?status=done", "status"),
        ("/api/v1/prompts?q=a%00b", "q"),
        ("/requests?status=queued", "status"),
        ("/requests?per_page=1000", "per_page"),
        ("/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/status?wait=61", "wait"),
        ("/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/status?wait=-1", "wait"),
        ("/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/status?wait=nan", "wait"),
        ("/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/result?wait=61", "wait"),
        ("/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/result?wait=-1", "wait"),
        ("/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/result?wait=soon", "wait"),
        ("/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/result?wait=inf", "wait"),
        ("/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/status?status=x", "status"),
        ("/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/stream?from=x", "from"),
        ("/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/stream?last_event_id=1", "last_event_id"),
    ],
)
async def test_a_query_that_cannot_be_read_is_refused(service: RunningService, path: str, field: str) -> None:
    async with service.session.get(path) as response:
        problem = json.loads(await response.read())
        check_problem(400, response.headers, problem)
    assert problem["field"] == field
    assert problem["error"].startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/prompt", 405),
        ("PUT", "/generate", 405),
        ("PATCH", "/api/v1/prompts", 405),
        ("HEAD", "/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/stream", 405),
        ("GET", "/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/status", 404),
        ("GET", "/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/result", 404),
        ("GET", "/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/stream", 404),
        ("DELETE", "/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057", 404),
        ("GET", "/api/v1/prompt/nonsense/status", 404),
        ("GET", "/api/v1/prompt/%00%ff/status", 404),
        ("GET", "/list/../etc/passwd", 404),
        ("GET", "/static/../config.toml", 404),
        ("GET", "/static/%2e%2e%2fconfig.toml", 404),
        ("GET", "/static/nothing.js", 404),
        ("GET", "/status/abc", 404),
        ("GET", "/status/-1", 404),
        ("GET", "/api/v1/ws", 400),
    ],
)
async def test_a_path_or_method_that_is_not_there_is_answered_in_the_same_shape(
    service: RunningService, method: str, path: str, status: int
) -> None:
    async with service.session.request(method, path) as response:
        assert response.status == status
        assert response.headers["Content-Type"] == "application/problem+json"
        if method != "HEAD":
            check_problem(status, response.headers, json.loads(await response.read()))
    if status == 405:
        assert response.headers["Allow"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01 not HTTP\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nBad Header\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET http://[bad/ HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"POST /generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}", b"400"),
        (b"GET /requests?%zz=%ff&page=%31 HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /requests HTTP/1.1\r\nHost: x\r\nOrigin: \xff\xfe\r\n\r\n", b"200"),
        (b"GET /requests HTTP/1.0\r\n\r\n", b"200"),
        (UPGRADE + b"Sec-WebSocket-Key: \xff\r\n\r\n", b"400"),
        (UPGRADE + b"Sec-WebSocket-Key: short\r\n\r\n", b"400"),
        (UPGRADE + b"\r\n", b"400"),
    ],
)
async def test_bytes_that_no_client_library_would_send_are_answered(
    service: RunningService, request_bytes: bytes, status: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(service.url).port)
    writer.write(request_bytes)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await reader.readline()).split()[1] == status
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_nobodys_error(service: RunningService) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(service.url).port)
    writer.write(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n{}")
    await writer.drain()
    assert (await service.call("GET", "/requests"))[0] == 200
    writer.close()
    await writer.wait_closed()
    # The fixture looks whether anything was logged.
    assert (await service.call("GET", "/requests"))[0] == 200


async def test_an_error_of_ours_is_answered_plainly_and_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with service_in_process() as service:
        service.jobs.backlog.limits = None  # type: ignore[assignment]
        status, problem = await refused(service, "/api/v1/prompt", b'{"prompt": "x"}')
    assert status == 500
    assert "internal error" in problem["error"]
    assert "Traceback" not in problem["error"]
    assert [record.exc_info is not None for record in caplog.records if record.levelno == logging.ERROR] == [True]
