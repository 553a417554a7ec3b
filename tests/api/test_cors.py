"""Pages of other origins: every answer can be read by those that are allowed, errors too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import aiohttp
import pytest
import pytest_asyncio

from tests.dropin.test_wire import connected, reply_of
from tests.support.running import RunningService, service_in_process

ORIGIN = {"Origin": "https://chat.example.org"}
UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[RunningService]:
    """One for all: what is answered does not depend on what came before."""
    async with service_in_process({"server.max_body": 2048}) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def strict_service() -> AsyncIterator[RunningService]:
    async with service_in_process({"server.allowed_origins": ["https://chat.example.org"]}) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/v1/prompts", None, 200),
        ("GET", "/requests", None, 200),
        ("GET", "/health", None, 200),
        ("HEAD", "/api/v1/prompts", None, 200),
        ("POST", "/api/v1/prompt", b'{"prompt": "x"}', 202),
        ("POST", "/api/v1/prompt", b"nonsense", 400),
        ("POST", "/api/v1/prompt", b"x" * 4096, 413),
        ("GET", f"/api/v1/prompt/{UNKNOWN}/stream", None, 404),
        ("GET", "/nothing/here", None, 404),
        ("PUT", "/generate", None, 405),
        ("PUT", "/nothing/here", None, 404),
        ("PUT", "/api/v1/ws", None, 405),
        ("GET", "/api/v1/ws", None, 400),
        ("GET", "/", None, 200),
        ("HEAD", "/", None, 200),
        ("GET", "/list", None, 200),
        ("GET", "/static/list.js", None, 200),
        ("GET", "/docs", None, 200),
        ("GET", "/metrics", None, 200),
        ("GET", "/api/tags/", None, 301),
        ("POST", "/api//chat", None, 307),
        ("OPTIONS", "/api/chat", None, 204),
        ("OPTIONS", "/nothing/here", None, 204),
        ("OPTIONS", "/", None, 204),
    ],
)
async def test_every_answer_can_be_read_by_a_page_of_any_origin(
    service: RunningService, method: str, path: str, body: bytes | None, status: int
) -> None:
    asked = partial(service.session.request, method, path, data=body, allow_redirects=False)
    async with asked(headers=ORIGIN) as response:
        assert response.status == status
        assert "Origin" in response.headers["Vary"]
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        assert "Access-Control-Expose-Headers" in response.headers
    async with asked() as response:
        assert response.status == status
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_an_error_of_ours_can_be_read_too() -> None:
    async with service_in_process() as service:
        service.jobs.backlog.limits = None  # type: ignore[assignment]
        async with service.session.post("/api/v1/prompt", data=b'{"prompt": "x"}', headers=ORIGIN) as response:
            assert response.status == 500
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]


async def test_an_event_stream_can_be_read_by_a_page_of_any_origin(service: RunningService) -> None:
    job_id = await service.finished()
    async with service.session.get(f"/api/v1/prompt/{job_id}/stream", headers=ORIGIN) as response:
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        assert b"event: done" in await response.read()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/prompt"),
        ("GET", f"/api/v1/prompt/{UNKNOWN}/status"),
        ("GET", f"/api/v1/prompt/{UNKNOWN}/result"),
        ("GET", f"/api/v1/prompt/{UNKNOWN}/stream"),
        ("DELETE", f"/api/v1/prompt/{UNKNOWN}"),
        ("GET", "/api/v1/prompts"),
        ("POST", "/generate"),
        ("GET", "/status/1"),
        ("GET", "/requests"),
        ("GET", "/health"),
        ("GET", "/"),
        ("PUT", "/api/chat"),
        ("POST", "/nothing/here"),
        ("POST", "/api/chat/"),
        ("POST", "/api//chat"),
        ("X-ODD", "/api/v1/ws"),
    ],
)
async def test_a_preflight_is_answered_on_every_path(service: RunningService, method: str, path: str) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization, x-anything"}
    async with service.session.options(path, headers={**ORIGIN, **asked}) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        assert response.headers["Access-Control-Allow-Methods"] == method
        allowed = response.headers["Access-Control-Allow-Headers"].lower()
        assert {"authorization", "x-anything"} <= set(allowed.split(","))


@pytest.mark.parametrize(
    "headers",
    [{}, ORIGIN, {"Access-Control-Request-Method": "POST"}, {**ORIGIN, "Access-Control-Request-Method": "a b"}],
    ids=["plain", "without a method", "without an origin", "no method"],
)
async def test_what_is_no_whole_preflight_is_answered_as_by_ollama(
    service: RunningService, headers: dict[str, str]
) -> None:
    for path in ("/", "/api/chat", "/api/v1/prompt", "/nothing/here"):
        async with service.session.options(path, headers=headers) as response:
            assert (response.status, await response.read()) == (204, b"")
            assert "Access-Control-Allow-Methods" not in response.headers


async def test_a_preflight_with_a_body_that_nobody_waits_for_ends_its_connection(service: RunningService) -> None:
    asked = b"OPTIONS /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    async with connected(service) as (reader, writer):
        writer.write(asked)
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 204 ")
    assert b"\r\nConnection: close\r\n" in head


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nOrigin: https://chat.example.org\r\nno header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nOrigin: https://chat.example.org\r\nX: %s\r\n\r\n" % (b"x" * 70_000), 400),
    ],
    ids=["no header", "too long"],
)
async def test_what_is_no_http_is_refused_readably(
    service: RunningService, strict_service: RunningService, request_bytes: bytes, status: int
) -> None:
    for server, origin, shown in (
        (service, b"https://chat.example.org", "https://chat.example.org"),
        (strict_service, b"https://chat.example.org", "https://chat.example.org"),
        (strict_service, b"https://elsewhere.example.org", None),
    ):
        async with connected(server) as (reader, writer):
            writer.write(request_bytes.replace(b"https://chat.example.org", origin))
            refused, headers, _ = await reply_of(reader)
        assert (refused, headers.get("access-control-allow-origin")) == (status, shown)


async def test_a_refusal_whose_origin_could_not_be_read_is_for_any_page_where_any_may_call(
    service: RunningService, strict_service: RunningService
) -> None:
    for server, shown in ((service, "*"), (strict_service, None)):
        async with connected(server) as (reader, writer):
            writer.write(b"\x16\x03\x01 no HTTP\r\n\r\n")
            _, headers, _ = await reply_of(reader)
        assert headers.get("access-control-allow-origin") == shown


async def test_an_origin_that_cannot_be_written_is_answered_without(service: RunningService) -> None:
    async with connected(service) as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nOrigin: \xff\xfe\r\n\r\n")
        status, headers, _ = await reply_of(reader)
    assert status == 200
    assert "access-control-allow-origin" not in headers


async def test_a_page_may_read_every_header(service: RunningService) -> None:
    named = {**ORIGIN, "X-Request-ID": "mine"}
    async with service.session.post("/api/v1/prompt", data=b'{"prompt": "x"}', headers=named) as response:
        exposed = response.headers["Access-Control-Expose-Headers"].lower().split(", ")
    assert {"x-request-id", "location", "server"} <= set(exposed)


async def test_a_preflight_of_another_origin_is_refused(strict_service: RunningService) -> None:
    asked = {"Access-Control-Request-Method": "POST"}
    origins = ((ORIGIN["Origin"], 200), (strict_service.url, 200), ("https://elsewhere.example.org", 403))
    for path in ("/api/v1/prompt", "/nothing"):
        for origin, status in origins:
            async with strict_service.session.options(path, headers={**asked, "Origin": origin}) as response:
                assert response.status == status
                assert ("Access-Control-Allow-Origin" in response.headers) is (origin == ORIGIN["Origin"])


async def test_only_the_configured_origins_may_read_and_connect(strict_service: RunningService) -> None:
    other = {"Origin": "https://elsewhere.example.org"}
    own = {"Origin": strict_service.url}
    for path in ("/api/v1/prompts", "/nothing"):
        async with strict_service.session.get(path, headers=other) as response:
            assert "Access-Control-Allow-Origin" not in response.headers
        async with strict_service.session.get(path, headers=ORIGIN) as response:
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await strict_service.session.ws_connect("/api/v1/ws", headers=other)
    assert refusal.value.status == 403
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await strict_service.session.ws_connect("/api/v1/ws", headers={"Origin": "http://[half"})
    for headers in (ORIGIN, own, {}):
        async with strict_service.session.ws_connect("/api/v1/ws", headers=headers) as socket:
            assert not socket.closed


async def test_pages_may_only_load_what_is_ours(service: RunningService) -> None:
    for path in ("/", "/list"):
        async with service.session.get(path, headers={"Accept": "text/html"}) as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith("text/html")
            assert "default-src 'self'" in response.headers["Content-Security-Policy"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            etag = response.headers["ETag"]
        async with service.session.get(path, headers={"Accept": "text/html", "If-None-Match": etag}) as response:
            assert response.status == 304
    async with service.session.get("/static/api.js") as response:
        assert response.headers["Content-Type"].startswith("text/javascript")


async def test_the_root_tells_programs_what_ollama_tells_them(service: RunningService) -> None:
    async with service.session.get("/") as response:
        assert (response.status, await response.text()) == (200, "Ollama is running")
    async with service.session.head("/") as response:
        assert response.status == 200
