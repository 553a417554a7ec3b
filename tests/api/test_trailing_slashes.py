"""A slash too many at the end of Corral's own paths, and where ``Location`` leads from each way of writing one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_asyncio
from yarl import URL

from service.endpoints import ENDPOINTS
from tests.support.access import ADMIN, made_key, service_with_keys
from tests.support.running import RunningService
from tests.support.walking import routes_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGES = ("/list", "/docs", "/redoc", "/openapi.json", "/static/list.js", "/docs/assets/swagger-ui.css")
POSTED: dict[str, dict[str, Any]] = {
    "/api/v1/prompt": {"prompt": "x"},
    "/generate": {"prompt": "x"},
    "/api/keys": {"name": "x"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[RunningService]:
    async with service_with_keys() as running:
        yield running


def as_it_is(service: RunningService, path: str) -> URL:
    """The address of a path that is sent as it is written here."""
    return URL(service.url + path, encoded=True)


async def seen(service: RunningService, method: str, path: str, **options: Any) -> tuple[int, str, str | None, int]:
    """Status, media type and allowed methods of a reply, and how many fields its object has."""
    options = {"headers": ADMIN, "allow_redirects": False, **options}
    async with service.session.request(method, path, **options) as reply:
        body = await reply.text() if reply.content_type.endswith("json") else ""
        return reply.status, reply.content_type, reply.headers.get("Allow"), len(json.loads(body)) if body else 0


async def test_every_route_of_corrals_api_answers_with_a_slash_as_without(service: RunningService) -> None:
    job_id = await finished(service)
    key_id = str((await made_key(service))["id"])
    relayed = (*ENDPOINTS, "/api/tags", "/api/ps", "/api/version", "/api/show", "/api/blobs", "/v1/models")
    relayed += ("/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/status", "/api/me")
    relayed += ("/api/signout", "/api/user/", "/api/experimental/")
    tried = 0
    for method, path in routes_of(service, id=job_id, request_id="1", name="simulated"):
        if path.startswith((*relayed, "/static", "/docs")) or path in ("/", *PAGES, "/redoc"):
            continue
        path = path.replace(job_id, key_id) if path.startswith("/api/keys") else path
        if method == "DELETE":
            # The first of two would change what the second finds.
            path = path.replace(key_id, "nothing")
        options = {"json": POSTED.get(path, {})} if method == "POST" else {}
        assert await seen(service, method, path + "/", **options) == await seen(service, method, path, **options)
        assert await seen(service, "PATCH", path + "/") == await seen(service, "PATCH", path)
        tried += 1
    assert tried > 25


async def finished(service: RunningService) -> str:
    status, answer = await service.call("POST", "/api/v1/prompt/", {"prompt": "Why?"}, headers=ADMIN)
    assert status == 202
    await service.until(answer["id"], "completed", headers=ADMIN)
    return str(answer["id"])


async def test_pages_lead_to_the_path_without_it_and_keep_the_query(service: RunningService) -> None:
    for path in PAGES:
        for method in ("GET", "HEAD"):
            address = f"{path}/?status=failed&q=%2F/"
            async with service.session.request(method, as_it_is(service, address), allow_redirects=False) as reply:
                assert reply.status == 308
                location = reply.headers["Location"]
            for prefix in ("", "/behind/a/proxy"):
                assert urljoin(prefix + address, location) == f"{prefix}{path}?status=failed&q=%2F/"
        assert (await seen(service, "POST", path + "/"))[:1] == (405,)
    for path in ("/static/nothing/", "/list//", "/nothing/"):
        assert (await seen(service, "GET", path))[0] in (307, 308, 404)
    hostile = as_it_is(service, "/static/%5C%5Cevil.example/")
    async with service.session.get(hostile, allow_redirects=False) as reply:
        assert reply.status == 308
        assert "\\" not in reply.headers["Location"]


async def test_from_slashes_too_many_a_relative_reference_leads_to_what_is_corrals_own(service: RunningService) -> None:
    for method, untidy, tidy in (
        ("POST", "//api/v1/prompt", "/api/v1/prompt"),
        ("POST", "/api/v1//prompt/?a=//b", "/api/v1/prompt/?a=//b"),
        ("POST", "///generate", "/generate"),
        ("GET", "//status/1", "/status/1"),
        ("HEAD", "/list//", "/list/"),
    ):
        address = as_it_is(service, untidy)
        async with service.session.request(method, address, headers=ADMIN, allow_redirects=False) as reply:
            assert reply.status == 307
            location = URL(reply.headers["Location"], encoded=True)
        assert not location.absolute
        for prefix in ("", "/behind/a/proxy"):
            # As browsers and curl do, and not Python's urljoin, which leaves out empty segments first.
            assert resolved(prefix + untidy, str(location)) == prefix + tidy
    # Ollama's own paths lead where they do with Ollama.
    async with service.session.get(as_it_is(service, "//api/tags"), headers=ADMIN, allow_redirects=False) as reply:
        assert reply.headers["Location"] == "/api/tags"


def resolved(base: str, reference: str) -> str:
    """The path to which a relative reference leads (RFC 3986, 5.2)."""
    path, mark, query = reference.partition("?")
    segments = base.partition("?")[0].split("/")[:-1]
    while path.startswith("../"):
        path = path.removeprefix("../")
        segments.pop()
    return "/".join([*segments, path]) + mark + query


@pytest.mark.parametrize("slash", ["", "/"])
async def test_location_leads_to_what_was_made_from_either_path_also_below_a_prefix(
    service: RunningService, slash: str
) -> None:
    for path, place in (("/api/v1/prompt", "/api/v1/prompt/{id}/status"), ("/api/keys", "/api/keys/{id}")):
        address = f"{path}{slash}?from=/elsewhere/"
        async with service.session.post(address, json=POSTED[path], headers=ADMIN) as reply:
            made, location = await reply.json(), reply.headers["Location"]
        for prefix in ("", "/behind/a/proxy"):
            assert urljoin(prefix + address, location) == prefix + place.format(id=made["id"])
        assert (await service.call("GET", urljoin(address, location), headers=ADMIN))[0] == 200


@pytest.mark.parametrize("path", ["/api/v1/prompt", "/generate"])
async def test_a_request_that_is_sent_again_with_a_slash_more_is_known(service: RunningService, path: str) -> None:
    headers = {**ADMIN, "Idempotency-Key": f"with and without at {path}"}
    first, again = [await service.call("POST", path + slash, {"prompt": "x"}, headers=headers) for slash in ("", "/")]
    assert first[0] == again[0] < 400
    name = "id" if "id" in first[1] else "request_id"
    assert first[1][name] == again[1][name]


async def test_such_a_request_is_logged_and_measured_as_one_to_the_route(service: RunningService) -> None:
    async with service.session.post("/generate/", json={"prompt": "x"}, headers=ADMIN) as reply:
        assert reply.status == 200
    async with service.session.get("/metrics/", headers=ADMIN) as reply:
        text = await reply.text()
    assert 'method="POST",route="/generate",status="200"' in text
    assert '/",status' not in text.replace('route="/",status', "")
    _, statistics = await service.call("GET", "/api/stats/", headers=ADMIN)
    assert statistics["totals"]["requests"] > 0


async def test_streams_and_websockets_are_found_there_and_keys_are_asked_for(service: RunningService) -> None:
    job_id = await finished(service)
    async with service.session.get(f"/api/v1/prompt/{job_id}/stream/", headers=ADMIN) as reply:
        assert "event: done" in await reply.text()
    _, token = await service.call("POST", "/api/token/", headers=ADMIN)
    query = {"token": token["access_token"]}
    async with service.session.get(f"/api/v1/prompt/{job_id}/stream/", params=query) as reply:
        assert reply.status == 200
    async with service.session.ws_connect("/api/v1/ws/", headers=ADMIN) as socket:
        await socket.send_json({"type": "subscribe", "channel": "stats"})
        assert (await socket.receive_json())["type"] == "subscribed"
    for path in ("/api/v1/prompts/", "/requests/", "/api/keys/"):
        assert (await service.call("GET", path))[0] == 401
    assert (await service.call("GET", "/health/"))[0] == 200


async def test_pages_of_other_origins_may_ask_there_too(service: RunningService) -> None:
    asked = {"Origin": "https://else.example", "Access-Control-Request-Method": "POST"}
    async with service.session.options("/api/v1/prompt/", headers=asked) as reply:
        assert (reply.status, reply.headers["Access-Control-Allow-Origin"]) == (200, "https://else.example")
    async with service.session.get("/api/v1/prompts/", headers={**ADMIN, **asked}) as reply:
        assert reply.headers["Access-Control-Allow-Origin"] == "https://else.example"
