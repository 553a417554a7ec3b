"""Who may not even ask: pages of origins that are not allowed, and whoever calls an open service by a foreign name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tests.dropin.test_wire import connected, reply_of
from tests.support.access import ADMIN, service_with_keys
from tests.support.running import RunningService, service_in_process

CHAT = "https://chat.example.org"
FOREIGN = "https://evil.example"
ORIGINS = {"server.allowed_origins": [CHAT, "app://*"]}
PUBLIC = {"Host": "corral.evil.example"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def default() -> AsyncIterator[RunningService]:
    async with service_in_process() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict() -> AsyncIterator[RunningService]:
    async with service_in_process({**ORIGINS, "server.allowed_hosts": ["corral.example.org"]}) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def closed() -> AsyncIterator[RunningService]:
    async with service_with_keys(ORIGINS) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxied() -> AsyncIterator[RunningService]:
    async with service_in_process({**ORIGINS, "server.trusted_proxies": ["127.0.0.1"]}) as running:
        yield running


async def status_of(service: RunningService, headers: Mapping[str, str], path: str = "/api/version") -> int:
    async with service.session.get(path, headers=headers) as response:
        return response.status


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("ollama-api:8000", id="a compose service"),
        pytest.param("corral_upstream", id="nginx's upstream"),
        pytest.param("corral.default.svc.cluster.local:8000", id="Kubernetes"),
        pytest.param("corral.default.svc", id="Kubernetes, short"),
        pytest.param("host.docker.internal:8000", id="Docker's host"),
        pytest.param("192.168.1.7:8000", id="an address"),
    ],
)
async def test_the_default_instance_is_served_by_names_that_are_not_public(default: RunningService, host: str) -> None:
    for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}"}, {"Host": host, "Origin": FOREIGN}):
        assert await status_of(default, headers) == 200
    # Schemes are not compared, and a websocket is no other than the rest.
    async with default.session.ws_connect("/api/v1/ws", headers={"Host": host, "Origin": f"https://{host}"}) as socket:
        assert not socket.closed


@pytest.mark.parametrize(
    ("method", "path", "kind", "told"),
    [
        ("GET", "/health", "application/problem+json", b'"service":"corral"'),
        ("GET", "/health/", "application/problem+json", b'"service":"corral"'),
        ("GET", "/api/v1/prompts", "application/problem+json", b'"detail":'),
        ("POST", "/api/v1/prompt", "application/problem+json", b'"status":403'),
        ("POST", "/api/chat", "application/json", b'{"error":"'),
        ("POST", "/v1/chat/completions", "application/json", b'{"error":{'),
        ("POST", "/v1/messages", "application/json", b'{"type":"error"'),
        ("GET", "/nothing/here", "application/problem+json", b'"error":'),
        ("GET", "/api//tags", "application/json", b'{"error":"'),
        ("GET", "/metrics", "application/problem+json", b""),
        ("GET", "/api/v1/ws", "application/problem+json", b""),
        ("OPTIONS", "/api/chat", "application/json", b""),
        ("PUT", "/api/chat", "application/json", b""),
        ("HEAD", "/", "application/problem+json", None),
    ],
)
async def test_a_public_name_is_refused_on_every_path_in_the_shape_of_the_path(
    default: RunningService, method: str, path: str, kind: str, told: bytes | None
) -> None:
    _, before = await default.call("GET", "/api/v1/prompts")
    asked = default.session.request(method, path, headers=PUBLIC, data=b'{"model": "llama3.2"}', allow_redirects=False)
    async with asked as response:
        body = await response.read()
    assert (response.status, response.content_type) == (403, kind)
    assert told is None or (told in body and b"server.allowed_hosts" in body and b"corral.evil.example" in body)
    assert (await default.call("GET", "/api/v1/prompts"))[1]["total"] == before["total"]


async def test_a_page_that_is_asked_for_by_a_public_name_is_a_page(default: RunningService) -> None:
    asked = {"Host": "<b>.evil.example", "Accept": "text/html,*/*"}
    for path in ("/", "/list", "/nothing"):
        async with default.session.get(path, headers=asked) as response:
            text = await response.text()
        assert (response.status, response.content_type) == (403, "text/html")
        assert "server.allowed_hosts" in text
        assert "<b>" not in text
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    # A program that asks for whatever there is must find out whose it is.
    async with default.session.get("/health", headers=asked) as response:
        assert (response.status, (await response.json(content_type=None))["service"]) == (403, "corral")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET http://corral.evil.example/health HTTP/1.1\r\nHost: localhost", 403),
        (b"GET http://localhost@evil.example/health HTTP/1.1\r\nHost: localhost", 403),
        (b"GET http://localhost:8000/health HTTP/1.1\r\nHost: corral.evil.example", 200),
        (b"GET http://user@localhost/health HTTP/1.1\r\nHost: localhost", 200),
        (b"GET //localhost/../health HTTP/1.1\r\nHost: evil.example", 403),
        (b"OPTIONS * HTTP/1.1\r\nHost: evil.example", 403),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost", 403),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", 400),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Host: evil.example", 200),
        (b"GET /health HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost\r\nX-Forwarded-For: ::1", 403),
        (b"GET /health HTTP/1.1\r\nHost: \xff\xfe", 403),
        (b"GET /health HTTP/1.1\r\nHost: " + b"a." * 30_000, 403),
        (b"GET /health HTTP/1.1\r\nHost:", 200),
        (b"GET /health HTTP/1.0", 200),
        (b"POST /api/chat HTTP/1.1\r\nHost: evil.example\r\nExpect: 100-continue\r\nContent-Length: 9", 403),
        (b"POST /api/chat HTTP/1.1\r\nHost: evil.example\r\nExpect: nothing\r\nContent-Length: 0", 403),
    ],
)
async def test_the_host_is_that_of_the_target_where_one_stands_there(
    default: RunningService, head: bytes, status: int
) -> None:
    async with connected(default) as (reader, writer):
        writer.write(head + b"\r\n\r\n")
        assert (await reply_of(reader))[0] == status


async def test_on_the_unix_socket_names_mean_nothing(default: RunningService, tmp_path: Path) -> None:
    path = f"{tmp_path}/admin.sock"
    await web.UnixSite(default.runner, path).start()
    async with (
        aiohttp.ClientSession("http://corral.evil.example", connector=aiohttp.UnixConnector(path)) as session,
        session.get("/api/v1/backends", headers={"Origin": "null"}) as response,
    ):
        assert response.status == 200


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [
        (CHAT, True),
        ("app://anything", True),
        ("http://corral.example.org", True),
        ("https://corral.example.org", True),
        (FOREIGN, False),
        ("null", False),
        ("", False),
        ("http://corral.example.org:8001", False),
        ("http://localhost", False),
        ("https://chat.example.org.evil.example", False),
        ("https://chat.example.org:444", False),
        ("http://[half", False),
        ("x" * 5_000, False),
    ],
)
async def test_a_request_of_a_page_that_may_not_call_is_refused_itself(
    strict: RunningService, origin: str, is_let_in: bool
) -> None:
    headers = {"Host": "corral.example.org", "Origin": origin}
    submitted = {**headers, "Content-Type": "text/plain"}
    _, before = await strict.call("GET", "/api/v1/prompts")
    calls: Iterable[tuple[str, str, Mapping[str, str], bytes | None, int]] = (
        ("GET", "/api/v1/prompts", headers, None, 200),
        ("POST", "/api/v1/prompt", submitted, b'{"prompt": "x"}', 202),
        ("GET", "/static/api.js", headers, None, 200),
        ("OPTIONS", "/api/chat", {**headers, "Access-Control-Request-Method": "POST"}, None, 200),
        ("OPTIONS", "/api/chat", headers, None, 204),
        ("GET", "/nothing", headers, None, 404),
    )
    for method, path, sent, body, status in calls:
        async with strict.session.request(method, path, headers=sent, data=body) as response:
            assert response.status == (status if is_let_in else 403), path
            assert is_let_in or b"server.allowed_origins" in await response.read()
            assert ("Access-Control-Allow-Origin" in response.headers) is (origin in (CHAT, "app://anything"))
    assert (await strict.call("GET", "/api/v1/prompts"))[1]["total"] == before["total"] + is_let_in
    if is_let_in:
        async with strict.session.ws_connect("/api/v1/ws", headers=headers) as socket:
            assert not socket.closed
    else:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await strict.session.ws_connect("/api/v1/ws", headers=headers)
        assert refusal.value.status == 403


@pytest.mark.parametrize(("first", "second"), [(CHAT, FOREIGN), (FOREIGN, CHAT), (CHAT, CHAT)])
async def test_of_several_origins_none_counts(strict: RunningService, first: str, second: str) -> None:
    head = f"GET /api/v1/prompts HTTP/1.1\r\nHost: localhost\r\nOrigin: {first}\r\nOrigin: {second}\r\n\r\n"
    async with connected(strict) as (reader, writer):
        writer.write(head.encode())
        assert (await reply_of(reader))[0] == 403


async def test_where_keys_are_required_a_page_of_whichever_host_is_called_is_ours(closed: RunningService) -> None:
    own = {"Host": "any.example", "Origin": "https://any.example", **ADMIN}
    assert await status_of(closed, own) == 200
    assert await status_of(closed, {**PUBLIC, **ADMIN}) == 200
    assert await status_of(closed, {**own, "Origin": FOREIGN}) == 403
    assert await status_of(closed, {"Host": "any.example", "Origin": FOREIGN}, "/list") == 403


async def test_a_trusted_proxy_answers_for_the_host_and_says_which_was_called(
    proxied: RunningService, strict: RunningService
) -> None:
    behind = {"Host": "corral.internal.example", "X-Forwarded-Host": "public.example, corral.example.org:8443"}
    for origin, status in (
        (None, 200),
        ("https://public.example", 200),
        ("https://corral.example.org:8443", 200),
        ("https://corral.internal.example", 200),
        (CHAT, 200),
        (FOREIGN, 403),
        ("null", 403),
    ):
        headers = behind if origin is None else {**behind, "Origin": origin}
        assert await status_of(proxied, headers) == status
        # Nobody else is believed.
        assert await status_of(strict, headers) == 403
