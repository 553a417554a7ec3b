"""Every route of the service, and every kind of caller: what a walk over all of them needs."""

from __future__ import annotations

import re
from typing import NamedTuple

from service.api.access.auth import AUTH
from service.simulated import Fault, FaultKind
from tests.support.access import ADMIN, Route, bearer, headers_of, let_pass, made_key, token_of
from tests.support.running import RunningService

OPEN = re.compile(r"/(list|static/.*|health|metrics|docs.*|redoc.*|openapi\.json)?")
"""Whoever asks is answered; pages then ask for a key themselves."""
MANAGEMENT = re.compile(
    r"/api/(pull|push|create|copy|delete|blobs/.*|signout|user/keys/.*|experimental/web_(search|fetch))/?"
)
FOR_ADMINS = re.compile(rf"/api/(keys.*|audit|stats/reset|v1/backends.*)/?|{MANAGEMENT.pattern}")
WEBSOCKET = "/api/v1/ws"
TOKEN = "/api/token"

AWAY_FROM_THE_CLOUD = [
    Fault(kind=FaultKind.ERROR, endpoint=path, status=503, message="account unavailable")
    for path in ("/api/me", "/api/signout", "/api/user/keys/{key}")
]
"""Else the simulated Ollama answers 401 of its own, as nobody has signed it in."""

NOTHING = {"id": "00000000-0000-7000-8000-000000000000", "request_id": "999", "digest": "sha256:" + "0" * 64}
"""What is not there, for the parameters of a path."""

UNKNOWN = ("nobody", "garbage", "revoked", "expired")
"""The callers that have no key, or none that is good."""
USERS = ("user", "person", "token")
FOREIGN = ("foreign_origin", "foreign_host")
"""An admin's key, from where nobody may call."""
ORIGINS = {"server.allowed_origins": ["https://chat.example.org"]}
"""With these a service knows origins that are foreign to it."""


class Callers(NamedTuple):
    """The headers of each kind of caller."""

    nobody: dict[str, str]
    garbage: dict[str, str]
    user: dict[str, str]
    admin: dict[str, str]
    revoked: dict[str, str]
    expired: dict[str, str]
    person: dict[str, str]
    """One of several behind a key, told by a header."""
    token: dict[str, str]
    """What a browser shows, which has no key."""
    foreign_origin: dict[str, str]
    """A page of an origin that is not one of ORIGINS."""
    foreign_host: dict[str, str]
    """A page of a public name that leads here."""


async def callers_of(service: RunningService) -> Callers:
    """One caller of each kind; the service's clock is decades ahead afterwards, as a key had to expire."""
    revoked = await made_key(service, name="revoked")
    await service.call("DELETE", f"/api/keys/{revoked['id']}", headers=ADMIN)
    expired = await headers_of(service, name="expired", expires=4_000_000_000)
    let_pass(service, 4_000_000_000_000 - service.app[AUTH].keys.listed()[0].created_at)
    user = await headers_of(service, name="user")
    person = await headers_of(service, name="shared", owner_header="X-Person") | {"X-Person": "anna"}
    token = bearer(await token_of(service, user))
    origin, host = ADMIN | {"Origin": "https://evil.example"}, ADMIN | {"Host": "corral.evil.example"}
    ended = bearer(revoked["key"]), expired
    return Callers({}, bearer("sk-garbage"), user, ADMIN, *ended, person, token, origin, host)


def routes_of(service: RunningService, **known: str) -> list[Route]:
    """Every route. Its parameters have the names that are ``known``, else those of things that are not there."""
    filled = NOTHING | known
    return sorted(
        {
            Route(
                route.method,
                re.sub(r"\{(\w+)(:[^}]*)?\}", lambda name: filled.get(name[1], "nothing"), route.resource.canonical),
            )
            for route in service.app.router.routes()
            if route.resource is not None and route.method not in ("OPTIONS", "*")
        }
    )
