"""What of a caller's head reaches a backend, and what of a backend's head reaches a caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from multidict import CIMultiDict
from yarl import URL

from service.api.dropin.headers import passed_on
from service.backend.http.headers import base_headers, with_callers
from tests.support.access import ADMIN, headers_of, service_with_keys
from tests.support.backends import until_answering
from tests.support.raw_server import Exchange, RawServer, raw_server, whole
from tests.support.running import PATIENCE_SECONDS, RunningService

DIGEST = "0123456789abcdefABCDEF" + "0" * 42
PERSONAL = (
    "Auth-User", "Cf-Access-Authenticated-User-Email", "Cf-Access-Jwt-Assertion", "Cookie", "From", "Remote-Email",
    "Remote-Groups", "Remote-Name", "Remote-User", "Tailscale-User-Login", "Tailscale-User-Name",
    "Tailscale-User-Profile-Pic", "X-Amzn-Oidc-Data", "X-Amzn-Oidc-Identity", "X-Auth-Email", "X-Auth-Request-Email",
    "X-Auth-Request-Groups", "X-Auth-Request-Preferred-Username", "X-Auth-Request-User", "X-Auth-Username",
    "X-Authentik-Email", "X-Authentik-Jwt", "X-Authentik-Username", "X-Email", "X-Forwarded-Access-Token",
    "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-User",
    "X-Goog-Authenticated-User-Email", "X-Goog-Iap-Jwt-Assertion", "X-MS-CLIENT-PRINCIPAL-NAME",
    "X-MS-TOKEN-AAD-ID-TOKEN", "X-OpenWebUI-User-Email", "X-OpenWebUI-User-Id", "X-OpenWebUI-User-Name",
    "X-OpenWebUI-User-Role", "X-Pomerium-Claim-Email", "X-Remote-User", "X-Token-User-Email", "X-User", "X-User-Email",
    "X-User-Id", "X-Username", "X-Vouch-User", "X-Webauth-User",
)  # fmt: skip
JUDGED_OTHERWISE = (
    "X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL",
)  # fmt: skip
"""Servers that believe them take the request for another one."""
SPEAKING_FOR_US = (
    "Alt-Svc", "Clear-Site-Data", "NEL", "Report-To", "Set-Cookie", "Strict-Transport-Security", "Via",
    "WWW-Authenticate", "X-Powered-By",
    # These tell where a backend is.
    "Content-Location", "Forwarded", "Link", "Location", "X-Backend-Server", "X-Envoy-Upstream-Host", "X-Real-IP",
    "X-Served-By", "X-Upstream-Addr",
)  # fmt: skip
COUNT_TOKENS = "/v1/messages/count_tokens"
AT_ONCE = 32
"""Calls on paths that are not known here, relayed at once."""
_LISTS = {
    "/api/version": {"version": "0.40.0"},
    "/api/tags": {"models": [{"name": "llama3.2:latest", "model": "llama3.2:latest"}]},
    "/api/ps": {"models": []},
}


def with_headers(reply: bytes, *lines: str) -> bytes:
    first, rest = reply.split(b"\r\n", 1)
    return b"\r\n".join([first, *(line.encode() for line in lines), rest])


async def answer(exchange: Exchange) -> None:
    told = whole(json.dumps(_LISTS.get(exchange.path, {"error": "no"})).encode())
    lines = [f"{name}: theirs" for name in SPEAKING_FOR_US]
    await exchange.send(with_headers(told, "X-Theirs: passes", "Connection: X-Hop", "X-Hop: theirs", *lines))


@asynccontextmanager
async def staged(
    options: dict[str, Any] | None = None, handler: Callable[[Exchange], Awaitable[None]] = answer
) -> AsyncIterator[tuple[RunningService, RawServer]]:
    async with (
        raw_server(handler) as ollama,
        service_with_keys({"backends": [{"name": "box", "url": ollama.url}], **(options or {})}) as service,
    ):
        await until_answering(service, 1)
        yield service, ollama


def asked_of(ollama: RawServer, start: int) -> list[str]:
    """The paths that were asked for since then, but for the service's own questions."""
    return [one.path for one in ollama.requests[start:] if one.path not in _LISTS]


async def test_who_calls_does_not_reach_a_backend_and_what_it_says_of_itself_no_caller() -> None:
    async with staged() as (service, ollama):
        sent = {**dict.fromkeys((*PERSONAL, *JUDGED_OTHERWISE), "somebody"), "X-Chat": "passes", **ADMIN}
        async with service.session.get("/v1/models/none", headers=sent) as response:
            assert response.status == 200
            told = response.headers
        [asked] = [one for one in ollama.requests if one.path == "/v1/models/none"]
        got = {name.lower() for name in asked.headers}
        assert "x-chat" in got
        assert not got & {name.lower() for name in (*PERSONAL, *JUDGED_OTHERWISE, "Authorization")}
        assert told["X-Theirs"] == "passes"
        assert not set(told) & {*SPEAKING_FOR_US, "X-Hop"}
        assert told.getall("Server") == ["Corral"]


async def test_the_header_that_names_the_person_behind_a_key_does_not_reach_a_backend() -> None:
    async with staged() as (service, ollama):
        key = await headers_of(service, owner_header="X-Whoever")
        async with service.session.get("/v1/models/none", headers={**key, "X-Whoever": "a person"}) as response:
            await response.read()
        [asked] = [one for one in ollama.requests if one.path == "/v1/models/none"]
        assert "X-Whoever" not in asked.headers


async def test_a_body_that_was_read_as_json_is_sent_as_json() -> None:
    async with staged({"server.pass_unknown": True}) as (service, ollama):
        as_form = {"Content-Type": "application/x-www-form-urlencoded", **await headers_of(service)}
        for path in ("/api/show", "/v1/messages/count_tokens", "/api/later", "/api/generate"):
            async with service.session.post(path, data=b'{"x": "&model=llama3.2&"}', headers=as_form) as response:
                assert response.status == 200
            [asked] = [one for one in ollama.requests if one.path == path]
            types = [value for name, value in asked.headers.items() if name.lower() == "content-type"]
            assert types == ["application/json"]


async def test_what_ollama_is_slow_to_answer_on_unknown_paths_holds_up_no_refusals() -> None:
    all_came, came = asyncio.Event(), 0

    async def silent(exchange: Exchange) -> None:
        nonlocal came
        if exchange.path != COUNT_TOKENS:
            await answer(exchange)
            return
        came += 1
        if came == AT_ONCE:
            all_came.set()
        await exchange.until_gone()

    async with staged(handler=silent) as (service, ollama):
        key = await headers_of(service)
        body = b'{"model": "llama3.2"}'
        counting = [asyncio.create_task(service.call("POST", COUNT_TOKENS, body, headers=key)) for _ in range(AT_ONCE)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            await all_came.wait()
            status, _ = await service.call("POST", "/api/generate", b"{}", headers=key)
        assert status == 200
        assert len([one for one in ollama.requests if one.path == "/api/generate"]) == 1
        assert not any(one.done() for one in counting)
        for one in counting:
            one.cancel()
        await asyncio.gather(*counting, return_exceptions=True)


def test_headers_of_one_connection_are_kept_back_whichever_line_names_them() -> None:
    callers = CIMultiDict(
        [("Connection", "keep-alive"), ("X-One", "1"), ("Connection", "X-Two, close"), ("X-Two", "2"), ("X-Three", "3")]
    )
    sent = with_callers(base_headers(URL("http://x"), {}), {}, callers)
    assert {name for name in sent if name.startswith("X-")} == {"X-One", "X-Three"}


def test_headers_that_the_operator_has_configured_are_sent_whatever_their_names() -> None:
    configured = {"X-Forwarded-User": "corral", "Authorization": "Bearer backend"}
    sent = with_callers(base_headers(URL("http://x"), configured), configured, CIMultiDict({"X-Forwarded-User": "a"}))
    assert (sent["X-Forwarded-User"], sent["Authorization"]) == ("corral", "Bearer backend")


def test_headers_of_a_backends_connection_are_kept_back_whichever_line_names_them() -> None:
    theirs = CIMultiDict([("Connection", "close"), ("X-Hop", "1"), ("Connection", "X-Hop"), ("X-Theirs", "2")])
    assert passed_on(theirs) == [("X-Theirs", "2")]


@pytest.mark.parametrize("method", ["HEAD", "POST"])
@pytest.mark.parametrize(
    "digest",
    [
        "nonsense", "sha256:", f"sha256:{DIGEST[1:]}", f"sha256:{DIGEST}0", f"sha512:{DIGEST}", f"sha256:{'g' * 64}",
        "sha256:..%2f..%2fpull", "%2e%2e", "..%5cx", f"sha256:{DIGEST}%00", f"sha256:{DIGEST}%0a", "%2e%2e%2fdelete",
        f"sha256:{DIGEST}%2f..", f"sha256:{DIGEST}%3Fx=1",
    ],
)  # fmt: skip
async def test_what_is_no_digest_is_refused_in_ollamas_words_and_reaches_no_backend(method: str, digest: str) -> None:
    async with staged() as (service, ollama):
        start = len(ollama.requests)
        status, body = await raw(service, method, f"/api/blobs/{digest}")
        assert asked_of(ollama, start) == []
        assert status == 400
        assert method == "HEAD" or json.loads(body) == {"error": "invalid digest format"}


@pytest.mark.parametrize("mark", [":", "-", "%3A"])
async def test_a_digest_reaches_its_backend(mark: str) -> None:
    async with staged() as (service, ollama):
        start = len(ollama.requests)
        status, _ = await raw(service, "POST", f"/api/blobs/sha256{mark}{DIGEST}")
        assert status == 200
        assert asked_of(ollama, start) == [f"/api/blobs/sha256{mark.replace('%3A', ':')}{DIGEST}"]


@pytest.mark.parametrize(
    "name",
    [
        "%2e%2e", "%2E%2e", "%2e", "..%2f..", "..%5capi", "a%5cb", "a%00b", "%00", "a%0d%0aX:%20y", "%252e%252e",
        "%252f", "a%7f", "a%2fb", "%ff%fe", "%ED%A0%80",
    ],
)  # fmt: skip
async def test_no_name_of_a_model_leads_to_another_path_of_a_backend(name: str) -> None:
    async with staged() as (service, ollama):
        start = len(ollama.requests)
        status, _ = await raw(service, "GET", f"/v1/models/{name}")
        assert 300 <= status < 500
        asked = asked_of(ollama, start)
        assert asked in ([], [f"/v1/models/{name.upper()}"])
        for path in asked:
            assert not any(part in path.lower() for part in ("..", "%2e", "%2f", "%5c", "%00", "%0"))


async def test_names_of_models_reach_their_backend_as_one_step() -> None:
    async with staged() as (service, ollama):
        start = len(ollama.requests)
        for name in ("none", "none:7b", "n%6Fne", "a%20b%3Fc"):
            await raw(service, "GET", f"/v1/models/{name}?x=1")
        steps = ["none", "none:7b", "none", "a%20b%3Fc"]
        assert asked_of(ollama, start) == [f"/v1/models/{step}" for step in steps]


@pytest.mark.parametrize("path", ["/api/%70ull", "/api/pull%2f..", "/api/%2e%2e/pull", "/api/pull%00", "/api/pull/%2e"])
async def test_a_path_reaches_a_backend_as_its_route_has_it(path: str) -> None:
    async with staged() as (service, ollama):
        start = len(ollama.requests)
        await raw(service, "POST", path)
        assert set(asked_of(ollama, start)) <= {"/api/pull"}


async def raw(service: RunningService, method: str, target: str) -> tuple[int, bytes]:
    """Ask with a target that no client library would leave as it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(service.url).port)
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", "Content-Length: 0"]
    lines += [f"{name}: {value}" for name, value in ADMIN.items()]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body
