"""Paths with slashes and dots too many, as clients make them of an address with a slash at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from yarl import URL

from service.simulated import SimulatedModel, SimulatedSettings
from tests.dropin.test_wire import connected, reply_of
from tests.support.running import RunningService, service_in_process

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why?"}], "stream": False}
MEASURED = [
    ("POST", "//api/generate", 307, "/api/generate"),
    ("POST", "/api//generate", 307, "/api/generate"),
    ("POST", "/api/./generate", 307, "/api/generate"),
    ("POST", "/api/x/../generate", 307, "/api/generate"),
    ("POST", "/../../api/generate", 307, "/api/generate"),
    ("POST", "/api/generate/.", 307, "/api/generate"),
    ("POST", "/api/generate/./", 307, "/api/generate/"),
    ("POST", "///api///generate///", 307, "/api/generate/"),
    ("POST", "/api/generate/", 307, "/api/generate"),
    ("POST", "/api//generate/?a=b&c=%2F//x/./y", 307, "/api/generate/?a=b&c=%2F//x/./y"),
    ("POST", "/api/generate/?a=b&c=%2F//x/./y", 307, "/api/generate?a=b&c=%2F//x/./y"),
    ("POST", "/v1//chat/completions", 307, "/v1/chat/completions"),
    ("POST", "//v1/messages//", 307, "/v1/messages/"),
    ("POST", "/api//nothing", 307, "/api/nothing"),
    ("PUT", "//api/generate", 307, "/api/generate"),
    ("GET", "//api/tags", 307, "/api/tags"),
    ("GET", "/api//tags/", 307, "/api/tags/"),
    ("GET", "/api/tags/", 301, "/api/tags"),
    ("GET", "/v1/models//", 307, "/v1/models/"),
    ("GET", "/v1/models/", 301, "/v1/models"),
    ("GET", "/v1/models//llama3.2", 307, "/v1/models/llama3.2"),
    ("GET", "/v1/models/x/..", 307, "/v1/models"),
    ("GET", "//", 307, "/"),
    ("HEAD", "/api/./version", 307, "/api/version"),
    ("HEAD", "/api/tags/", 307, "/api/tags"),
    ("DELETE", "/api//delete", 307, "/api/delete"),
    ("DELETE", "/api/delete/", 307, "/api/delete"),
]
"""What Ollama was seen to answer."""
HOSTILE = [
    "//evil.example", "//evil.example/", "//evil.example/..", "//evil.example/../api/tags", "//evil.example//api/tags/",
    "/.//evil.example/", "/..//evil.example", "/x/..//evil.example/", "//%2Fevil.example/", "/./%2F%2Fevil.example",
    "//\\evil.example/", "/./\\\\evil.example", "/.//%5Cevil.example/", "/v1/models//evil.example/",
    "/.//@evil.example", "/v1/models/%2F%2Fevil.example/", "/.//evil.example/?to=//evil.example",
]  # fmt: skip


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[RunningService]:
    """One for all: what is answered does not depend on what came before."""
    async with service_in_process() as running:
        yield running


async def redirected(service: RunningService, url: str, method: str, path: str) -> tuple[int, str | None, str, str]:
    """Status, where to, media type and body of the reply to a path that is sent as it is."""
    address = URL(url + path, encoded=True)
    async with service.session.request(method, address, allow_redirects=False) as response:
        headers = response.headers
        return response.status, headers.get("Location"), headers.get("Content-Type", ""), await response.text()


@pytest.mark.parametrize(("method", "path", "status", "location"), MEASURED)
async def test_it_is_sent_where_ollama_sends_it(
    service: RunningService, method: str, path: str, status: int, location: str
) -> None:
    reply = await redirected(service, service.url, method, path)
    assert reply[:2] == (status, location)
    assert reply == await redirected(service, service.ollama.url, method, path)
    if method == "GET":
        assert reply[2] == "text/html; charset=utf-8"
        assert f'<a href="{location}">' in reply[3]
    else:
        assert reply[3] == ""


async def test_who_follows_gets_the_answer_in_every_dialect(service: RunningService) -> None:
    for path in ("//api/chat", "/v1//chat/completions/", "/v1/./messages"):
        body = {**CHAT, "max_tokens": 5}
        async with service.session.post(URL(service.url + path, encoded=True), json=body) as response:
            assert response.status == 200, await response.text()
            assert (await response.json())["model"] == "llama3.2"


@pytest.mark.parametrize("path", HOSTILE)
async def test_nobody_is_sent_to_another_host(service: RunningService, path: str) -> None:
    _, location, _, _ = await redirected(service, service.url, "GET", path)
    if location is not None:
        assert URL(service.url).join(URL(location)).origin() == URL(service.url)
        assert location.startswith("/")
        assert not location.startswith("//")
        assert "\\" not in location


@pytest.mark.parametrize("target", ["http://evil.internal//api/tags", "http://evil.internal/api/tags/"])
async def test_a_host_in_front_of_the_path_is_left_out(service: RunningService, target: str) -> None:
    async with connected(service) as (reader, writer):
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        _, headers, _ = await reply_of(reader)
        assert headers["location"].startswith("/api/tags")


async def test_what_is_escaped_stays_so(service: RunningService) -> None:
    """Ollama escapes it once more, after which no model has that name."""
    for path, location in (
        ("/v1//models/a%2Fb", "/v1/models/a%2Fb"),
        ("/v1/models/a%20b%3Fc/", "/v1/models/a%20b%3Fc"),
        ("//api%2Fgenerate", "/api%2Fgenerate"),
    ):
        assert (await redirected(service, service.url, "GET", path))[1] == location


async def test_a_model_is_found_behind_a_slash_too_many() -> None:
    name = "huggingface/some.Thing:Q4_K_M"
    async with service_in_process(settings=SimulatedSettings(models=(SimulatedModel(name),))) as service:
        await service.call("GET", "/api/tags")
        status, location, _, _ = await redirected(service, service.url, "GET", f"/v1/models/{name}/")
        assert (status, location) == (301, f"/v1/models/{name}")
        assert (await service.call("GET", f"/v1/models/{name}/"))[1]["id"] == name


@pytest.mark.parametrize("path", ["//api/generate", "/api/generate/"])
async def test_no_body_is_asked_for(service: RunningService, path: str) -> None:
    asking = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\nExpect: 100-continue\r\n\r\n"
    async with connected(service) as (reader, writer):
        writer.write(asking.encode())
        status, headers, _ = await reply_of(reader)
        assert (status, headers["location"], headers["connection"]) == (307, "/api/generate", "close")


async def test_no_key_is_asked_for_and_nothing_is_written_down() -> None:
    async with service_in_process({"auth.required": True, "metrics.public": True}) as service:
        assert (await redirected(service, service.url, "POST", "//api/generate"))[0] == 307
        async with service.session.post(URL(f"{service.url}//api/generate", encoded=True), json={}) as response:
            assert response.status == 401
        async with service.session.get("/metrics") as response:
            assert 'method="POST",route="none",status="307"' in await response.text()
