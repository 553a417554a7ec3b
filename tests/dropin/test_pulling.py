"""Pulling what is there: a program that does so at every start is told that it is, and needs no admin's key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import pytest_asyncio

from service.simulated import SimulatedServer
from tests.dropin.test_lists import models
from tests.support.access import ADMIN, headers_of, let_pass, service_with_keys
from tests.support.running import RunningService

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Pulling(NamedTuple):
    """A service and the backend that answers."""

    service: RunningService
    backend: SimulatedServer

    @property
    def pulls(self) -> int:
        """How many of them have come to the backend."""
        return self.backend.observations.requests["/api/pull"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pulling() -> AsyncIterator[Pulling]:
    """One backend, which has a model that must not be used; where the other was there is nobody."""
    async with SimulatedServer(models("elsewhere")) as gone, SimulatedServer(models("secret", "own", "other")) as one:
        backends = [{"name": "one", "url": one.url, "models": ["own", "other"]}, {"name": "gone", "url": gone.url}]
        async with service_with_keys({"backends": backends}) as running:
            await running.call("GET", "/api/tags", headers=ADMIN)
            await gone.stop()
            # What was told in this second is not asked for again.
            let_pass(running, 2_000)
            while (await running.call("GET", "/api/v1/backends", headers=ADMIN))[1]["backends"][1]["state"] == "ok":
                await running.call("GET", "/api/models", headers=ADMIN)
            yield Pulling(running, one)


async def pulled(service: RunningService, body: bytes, headers: dict[str, str]) -> tuple[int, str, str]:
    """Status, media type and text."""
    async with service.session.post("/api/pull", data=body, headers=headers) as response:
        return response.status, response.headers["Content-Type"], await response.text()


@pytest.mark.parametrize(
    "body", [b'{"model": "own"}', b'{"Name": "OWN:latest", "model": ""}', b'{"model": "own", "stream": null}']
)
async def test_what_is_there_is_there_at_once(pulling: Pulling, body: bytes) -> None:
    expected = (200, "application/x-ndjson", '{"status":"success"}\n')
    assert await pulled(pulling.service, body, await headers_of(pulling.service)) == expected
    assert pulling.pulls == 0


async def test_it_is_one_object_for_who_wants_no_stream(pulling: Pulling) -> None:
    user = await headers_of(pulling.service)
    reply = await pulled(pulling.service, b'{"model": "own", "stream": false}', user)
    assert reply == (200, "application/json", '{"status":"success"}')


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model": "nosuch"}', 403),
        (b'{"model": "elsewhere"}', 403),
        (b'{"model": "secret"}', 403),
        (b'{"model": "other"}', 403),
        (b'{"model": ""}', 403),
        (b'{"model": 5}', 403),
        (b"{}", 403),
        (b"", 403),
        (b'{"model": "own", "Model": "nosuch"}', 400),
        (b'{"model": "own", "name": 5}', 400),
        (b'{"model": "own", "stream": "no"}', 400),
        (b'{"model": "own", "username": 1}', 400),
        (b'{"model": "own"} {"model": "nosuch"}', 400),
    ],
)
async def test_everything_else_is_not_for_a_users_key(pulling: Pulling, body: bytes, status: int) -> None:
    """``other`` is there, but not for this key."""
    user = await headers_of(pulling.service, models=["own", "elsewhere", "nosuch", "secret"])
    assert (await pulled(pulling.service, body, user))[0] == status
    assert pulling.pulls == 0


async def test_whoever_has_no_key_is_told_to_show_one_where_one_is_needed(pulling: Pulling) -> None:
    assert (await pulled(pulling.service, b'{"model": "own"}', {}))[0] == 401


async def test_where_no_keys_are_required_nobody_needs_one_for_what_is_there() -> None:
    async with service_with_keys(required=False) as service:
        assert (await pulled(service, b'{"model": "llama3.2"}', {}))[0] == 200
        assert (await pulled(service, b'{"model": "nosuch"}', {}))[0] == 401
        assert service.ollama.observations.requests["/api/pull"] == 0


async def test_an_admins_pull_goes_to_ollama_which_may_have_a_newer_one() -> None:
    async with service_with_keys() as service:
        status, _, text = await pulled(service, b'{"model": "llama3.2"}', ADMIN)
        assert (status, service.ollama.observations.requests["/api/pull"]) == (200, 1)
        assert "pulling manifest" in text
        assert text.endswith('{"status":"success"}\n')
