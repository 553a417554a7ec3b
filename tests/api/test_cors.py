"""Pages of other origins: every answer can be read by those that are allowed, errors too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

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
        ("OPTIONS", "/api/v1/ws", None, 405),
    ],
)
async def test_every_answer_can_be_read_by_a_page_of_any_origin(
    service: RunningService, method: str, path: str, body: bytes | None, status: int
) -> None:
    async with service.session.request(method, path, data=body, headers=ORIGIN) as response:
        assert response.status == status
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        assert "Access-Control-Expose-Headers" in response.headers
    async with service.session.request(method, path, data=body) as response:
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
    ],
)
async def test_a_preflight_is_answered_on_every_route(service: RunningService, method: str, path: str) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization, x-anything"}
    async with service.session.options(path, headers={**ORIGIN, **asked}) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        assert response.headers["Access-Control-Allow-Methods"] == method
        allowed = response.headers["Access-Control-Allow-Headers"].lower()
        assert {"authorization", "x-anything"} <= set(allowed.split(","))


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
