"""What has to do with ollama.com: everybody may read what a backend tells, and only admins act as the server does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from service.simulated import Fault, FaultKind, SimulatedServer
from tests.clients.conftest import VERSIONS
from tests.dropin.test_lists import models
from tests.support.access import ADMIN, headers_of, service_with_keys
from tests.support.running import RunningService

TOLD = (
    ("GET", "/api/status"),
    ("POST", "/api/me"),
    ("GET", "/api/experimental/model-recommendations"),
)
ACTED: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/api/signout", None),
    ("DELETE", "/api/user/keys/c2ltdWxhdGVk", None),
    ("POST", "/api/experimental/web_search", {"query": "x"}),
    ("POST", "/api/experimental/web_fetch", {"url": "https://example.org"}),
)


async def reply(
    url: str, service: RunningService, method: str, path: str, body: Any, **headers: str
) -> tuple[int, str, str]:
    """Status, media type and text of what is at the address."""
    data = json.dumps(body) if body is not None else None
    async with service.session.request(method, url + path, data=data, headers=headers) as response:
        return response.status, response.headers["Content-Type"], await response.text()


@pytest.mark.parametrize("version", VERSIONS)
async def test_they_are_answered_as_ollama_answers(version: str) -> None:
    async with service_with_keys(settings=models("llama3.2", version=version)) as service:
        user, ollama = await headers_of(service), service.ollama.url
        for method, path in TOLD:
            own = await reply(ollama, service, method, path, None)
            assert await reply(service.url, service, method, path, None, **user) == own
            assert await reply(service.url, service, method, path, {}, **user) == own
            for wrong in ("HEAD", "DELETE"):
                expected = await reply(ollama, service, wrong, path, None)
                assert await reply(service.url, service, wrong, path, None, **user) == expected
                assert expected[0] == 405
        for method, path, body in ACTED:
            own = await reply(ollama, service, method, path, body)
            counts = service.ollama.observations.requests
            before = counts[path] + counts["/api/user/keys/{key}"]
            assert (await reply(service.url, service, method, path, body, **user))[0] == 403
            assert counts[path] + counts["/api/user/keys/{key}"] == before
            assert await reply(service.url, service, method, path, body, **ADMIN) == own


async def test_one_of_several_backends_is_asked_and_the_next_when_it_is_silent() -> None:
    async with SimulatedServer(models("one")) as one, SimulatedServer(models("two")) as two:
        backends = [{"name": "one", "url": one.url}, {"name": "two", "url": two.url}]
        async with service_with_keys({"backends": backends}) as service:
            await service.call("GET", "/api/tags", headers=ADMIN)
            for method, path in TOLD:
                await reply(service.url, service, method, path, None, **ADMIN)
                assert (one.observations.requests[path], two.observations.requests[path]) == (1, 0)
            one.arm(Fault(kind=FaultKind.HANG_UP, endpoint="/api/status"))
            assert (await reply(service.url, service, "GET", "/api/status", None, **ADMIN))[0] == 200
            assert two.observations.requests["/api/status"] == 1


async def test_a_backend_whose_version_lacks_the_path_does_not_answer_for_one_that_has_it() -> None:
    asked: tuple[tuple[str, Any, int], ...] = (
        ("/v1/systemone", {"state": "x"}, 400),
        ("/v1/messages/count_tokens", {"messages": []}, 200),
    )
    older, newer = models("one", version="0.34.0"), models("two", version="0.35.0")
    newer = replace(newer, later_paths=("/v1/messages/count_tokens",))
    async with SimulatedServer(older) as one, SimulatedServer(newer) as two:
        backends = [{"name": "one", "url": one.url}, {"name": "two", "url": two.url}]
        async with service_with_keys({"backends": backends}) as service:
            await service.call("GET", "/api/tags", headers=ADMIN)
            user = await headers_of(service)
            for path, body, status in asked:
                assert (await reply(service.url, service, "POST", path, body, **user))[0] == status
            nowhere = {"model": "none", "messages": []}
            assert (await reply(service.url, service, "POST", asked[1][0], nowhere, **user))[0] == 200
            await two.stop()
            assert (await reply(service.url, service, "POST", "/v1/systemone", {"state": "x"}, **user))[0] == 404


async def test_a_key_that_is_none_does_not_become_part_of_an_address() -> None:
    async with service_with_keys() as service:
        for key in ("..%2F..%2Fdelete", "%2e%2e", "a%2Fb", "a%20b"):
            status, _, _ = await reply(service.url, service, "DELETE", f"/api/user/keys/{key}", None, **ADMIN)
            assert status in (400, 404)
        assert service.ollama.observations.requests["/api/user/keys/{key}"] == 0
