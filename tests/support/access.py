"""A service that is used with keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from service.api.access.auth import AUTH
from service.api.context import CLOCK
from service.key import Key
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

ADMIN = {"Authorization": "Bearer the-key-of-the-tests-admin"}
HOUR_MS = 3_600_000

PROMPT: dict[str, Any] = {"prompt": "Hello", "model": "llama3.2"}
MESSAGES = {"model": "llama3.2", "messages": [{"role": "user", "content": "Hello"}], "stream": False}
DOORS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("/api/v1/prompt", PROMPT, ("error",)),
    ("/generate", PROMPT, ("error",)),
    ("/api/generate", {**PROMPT, "stream": False}, ("error",)),
    ("/api/chat", MESSAGES, ("error",)),
    ("/api/embed", {"model": "llama3.2", "input": "Hello"}, ("error",)),
    ("/v1/chat/completions", MESSAGES, ("error", "message")),
    ("/v1/completions", PROMPT, ("error", "message")),
    ("/v1/responses", {"model": "llama3.2", "input": "Hello"}, ("error", "message")),
    ("/v1/images/generations", PROMPT, ("error", "message")),
    ("/v1/systemone", {"model": "llama3.2", "state": "Hello", "questions": {}}, ("error",)),
    ("/v1/messages", {**MESSAGES, "max_tokens": 20}, ("error", "message")),
]
"""The routes that make jobs of JSON, each with a body, and where its refusals have their message."""


@asynccontextmanager
async def service_with_keys(
    options: dict[str, Any] | None = None, *, required: bool = True, folder: Path | None = None, **settings: Any
) -> AsyncIterator[RunningService]:
    """The service with an admin's key, which ADMIN shows; ``required``: nobody is served without a key."""
    admin = {"auth.required": required, "auth.demo_admin_key": ADMIN["Authorization"].removeprefix("Bearer ")}
    async with service_in_process({**admin, **(options or {})}, folder=folder, **settings) as service:
        yield service


async def made_key(service: RunningService, **fields: Any) -> dict[str, Any]:
    """The answer to the request for a new key: its ``key``, its ``id`` and all that it is."""
    status, answer = await service.call("POST", "/api/keys", {"name": "test", **fields}, headers=ADMIN)
    assert status == 201, answer
    return dict(answer)


async def headers_of(service: RunningService, **fields: Any) -> dict[str, str]:
    """What a program with a new key sends."""
    return bearer((await made_key(service, **fields))["key"])


def bearer(text: str) -> dict[str, str]:
    """The header that shows a key or a token."""
    return {"Authorization": f"Bearer {text}"}


def stored_key(service: RunningService, key_id: str) -> Key:
    """A key as the service holds it."""
    key = service.app[AUTH].keys.get(key_id)
    assert key is not None
    return key


def let_pass(service: RunningService, milliseconds: int) -> None:
    """Time passes for the service."""
    clock = service.app[CLOCK]
    clock.not_before(clock.now_ms() + milliseconds)


class Route(NamedTuple):
    method: str
    path: str


async def status_of(service: RunningService, route: Route, headers: dict[str, str]) -> int:
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with service.session.request(route.method, route.path, headers=headers, data=b"") as response:
            return response.status


async def finished(service: RunningService, headers: dict[str, str]) -> str:
    """The id of a completed job."""
    status, job = await service.call("POST", "/api/v1/prompt", {"prompt": "Hello"}, headers=headers)
    assert status == 202, job
    for known in ("queued", "processing"):
        query = {"wait": str(PATIENCE_SECONDS), "status": known}
        _, job = await service.call("GET", f"/api/v1/prompt/{job['id']}/status", params=query, headers=headers)
    assert job["status"] == "completed"
    return str(job["id"])


async def owner_of(service: RunningService, headers: dict[str, str]) -> str:
    job_id = await finished(service, headers)
    return (await service.jobs.views.view(job_id)).job.owner


async def token_of(service: RunningService, headers: dict[str, str]) -> str:
    status, answer = await service.call("POST", "/api/token", headers=headers)
    assert (status, answer["token_type"]) == (200, "bearer")
    return str(answer["access_token"])


@asynccontextmanager
async def two_users() -> AsyncIterator[tuple[RunningService, dict[str, str], dict[str, str], str]]:
    """A service, the headers of two users, and a finished job of the first."""
    async with service_with_keys() as service:
        own, other = await headers_of(service, name="own"), await headers_of(service, name="other")
        yield service, own, other, await finished(service, own)
