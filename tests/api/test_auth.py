"""Who may do what: every route by every kind of caller, who is behind a request, and what each may see."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from service.api.access.client_address import ClientAddresses
from service.cli.admin_socket import admin_socket_path
from tests.support.access import (
    ADMIN,
    Route,
    finished,
    made_key,
    owner_of,
    service_with_keys,
    status_of,
)
from tests.support.running import RunningService
from tests.support.walking import (
    AWAY_FROM_THE_CLOUD,
    FOR_ADMINS,
    FOREIGN,
    OPEN,
    ORIGINS,
    TOKEN,
    USERS,
    WEBSOCKET,
    callers_of,
    routes_of,
)


async def misjudged(
    service: RunningService, is_right: Callable[[str, Route, int], bool]
) -> list[tuple[str, str, str, int]]:
    """Every caller at every route whose status is not right."""
    callers = await callers_of(service)
    wrong = []
    for route in routes_of(service):
        for kind, headers in callers._asdict().items():
            status = await status_of(service, route, headers)
            if not is_right(kind, route, status):
                wrong.append((kind, *route, status))
    return wrong


async def test_every_route_serves_whom_it_should_where_keys_are_required() -> None:
    def is_right(kind: str, route: Route, status: int) -> bool:
        if kind == "foreign_origin":
            return status == 403
        # A page of a public name has no key: whoever calls by it with one is let in.
        if OPEN.fullmatch(route.path) or kind in ("admin", "foreign_host"):
            return status not in (401, 403)
        if kind == "token" and route.path == TOKEN:
            # A token does not prolong itself.
            return status == 401
        if kind in USERS:
            return (status == 403) == bool(FOR_ADMINS.fullmatch(route.path)) and status != 401
        if route.path == WEBSOCKET and kind in ("nobody", "garbage"):
            # Whoever cannot send a header may still send a token when it is connected.
            return status == 400
        return status == 401

    async with service_with_keys(ORIGINS, faults=AWAY_FROM_THE_CLOUD) as service:
        assert await misjudged(service, is_right) == []


async def test_without_required_keys_only_admins_routes_ask_for_one_and_bad_keys_are_refused() -> None:
    def is_right(kind: str, route: Route, status: int) -> bool:
        if kind in FOREIGN:
            return status == 403
        if OPEN.fullmatch(route.path):
            return status not in (401, 403)
        if kind in ("revoked", "expired"):
            return status == 401
        if kind == "admin":
            return status not in (401, 403)
        if FOR_ADMINS.fullmatch(route.path):
            return status == (403 if kind in USERS else 401)
        if route.path == TOKEN:
            return (status == 401) == (kind not in ("user", "person"))
        return status not in (401, 403)

    async with service_with_keys(ORIGINS, required=False, faults=AWAY_FROM_THE_CLOUD) as service:
        assert await misjudged(service, is_right) == []


async def test_every_route_is_walked() -> None:
    async with service_with_keys() as service:
        routes = routes_of(service)
        assert len(routes) > 40
        assert Route("POST", "/v1/chat/completions") in routes
        assert Route("DELETE", "/api/v1/prompt/00000000-0000-7000-8000-000000000000") in routes


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/api/v1/prompt", ("error",)),
        ("/generate", ("error",)),
        ("/api/chat", ("error",)),
        ("/v1/chat/completions", ("error", "message")),
        ("/v1/messages", ("error", "message")),
    ],
)
async def test_a_refusal_has_the_shape_of_its_dialect(path: str, place: tuple[str, ...]) -> None:
    async with service_with_keys() as service, service.session.post(path, data=b"{}") as response:
        answer = await response.json(content_type=None)
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        for step in place:
            answer = answer[step]
        assert answer.startswith("an API key is needed")


@pytest.mark.parametrize("shown", ["Bearer {}", "bearer  {} ", "BEARER {}"])
async def test_a_key_is_read_however_the_scheme_is_written(shown: str) -> None:
    async with service_with_keys() as service:
        key = (await made_key(service))["key"]
        assert (await service.call("GET", "/api/stats", headers={"Authorization": shown.format(key)}))[0] == 200


async def test_a_key_is_read_from_either_header_whatever_stands_in_the_other() -> None:
    async with service_with_keys() as service:
        key = (await made_key(service))["key"]
        for headers in ({"x-api-key": key}, {"x-api-key": key, "Authorization": "Bearer sk-unused"}):
            assert (await service.call("GET", "/api/stats", headers=headers))[0] == 200
        for headers in ({"Authorization": key}, {"Authorization": f"Basic {key}"}, {"x-api-key": f"Bearer {key}"}):
            assert (await service.call("GET", "/api/stats", headers=headers))[0] == 401


async def test_a_key_is_not_taken_from_the_address() -> None:
    async with service_with_keys() as service:
        key = (await made_key(service))["key"]
        job_id = await finished(service, ADMIN)
        for path in ("/api/stats", f"/api/v1/prompt/{job_id}/stream"):
            assert (await service.session.get(path, params={"token": key})).status == 401


# Where requests come from


@pytest.mark.parametrize(
    ("headers", "owner"),
    [
        ({}, "127.0.0.1"),
        ({"X-Forwarded-For": "203.0.113.7"}, "203.0.113.7"),
        ({"X-Forwarded-For": "198.51.100.1, 203.0.113.7"}, "203.0.113.7"),
        ({"X-Forwarded-For": "198.51.100.1, 203.0.113.7, 10.1.2.3"}, "203.0.113.7"),
        ({"X-Forwarded-For": "10.0.0.1, 10.1.2.3"}, "10.0.0.1"),
        ({"X-Forwarded-For": "203.0.113.7:4711"}, "203.0.113.7"),
        ({"X-Forwarded-For": "2001:db8:1:2:3:4:5:6"}, "2001:db8:1:2::/64"),
        ({"X-Forwarded-For": "[2001:db8:1:2::9]:443"}, "2001:db8:1:2::/64"),
        ({"X-Forwarded-For": "::ffff:203.0.113.7"}, "203.0.113.7"),
        # Whoever is on this machine is one owner, whichever loopback address its program has tried.
        ({"X-Forwarded-For": "::1"}, "127.0.0.1"),
        ({"X-Forwarded-For": "[::1]:4711"}, "127.0.0.1"),
        ({"X-Forwarded-For": "127.0.0.9"}, "127.0.0.1"),
        ({"X-Forwarded-For": "unknown"}, "127.0.0.1"),
        ({"X-Forwarded-For": "203.0.113.7, nonsense"}, "127.0.0.1"),
        ({"X-Forwarded-For": ""}, "127.0.0.1"),
        ({"Forwarded": 'for="[2001:db8:1:2::9]:443";proto=https'}, "2001:db8:1:2::/64"),
        ({"Forwarded": "for=198.51.100.1, for=203.0.113.7"}, "203.0.113.7"),
        ({"Forwarded": "for=198.51.100.1", "X-Forwarded-For": "203.0.113.7"}, "203.0.113.7"),
    ],
)
async def test_behind_a_trusted_proxy_the_client_counts(headers: dict[str, str], owner: str) -> None:
    trusted = {"server.trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]}
    async with service_with_keys(trusted, required=False) as service:
        assert await owner_of(service, headers) == owner


@pytest.mark.parametrize(
    ("trusted", "peer", "owner"),
    [
        ("127.0.0.1", "::1", "203.0.113.7"),
        ("::1", "127.0.0.1", "203.0.113.7"),
        ("192.0.2.0/24", "::1", "127.0.0.1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::/64"),
    ],
)
def test_a_proxy_on_this_machine_is_believed_by_either_family(trusted: str, peer: str, owner: str) -> None:
    request = make_mocked_request("GET", "/", {"X-Forwarded-For": "203.0.113.7"}).clone(remote=peer)
    assert ClientAddresses([ip_network(trusted)]).owner_of(request) == owner


async def test_from_anybody_else_such_headers_are_not_believed() -> None:
    forged = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7"}
    for trusted in ([], ["192.0.2.0/24"]):
        async with service_with_keys({"server.trusted_proxies": trusted}, required=False) as service:
            assert await owner_of(service, forged) == "127.0.0.1"


async def test_whoever_may_open_the_socket_is_an_admin() -> None:
    async with service_with_keys() as service:
        socket = admin_socket_path(service.config)
        assert socket is not None
        await web.UnixSite(service.runner, socket).start()
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
            for path in ("/api/keys", "/api/v1/prompts", "/api/stats"):
                async with session.get(f"http://localhost{path}") as response:
                    assert response.status == 200
