"""What a service that requires keys tells of itself, and to whom."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parsed_text

from tests.support.access import ADMIN, headers_of, service_with_keys
from tests.support.backends import until_health
from tests.support.running import RunningService, service_in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET_HOST = "hidden.invalid"
BACKENDS: list[dict[str, Any]] = [{"name": "box", "url": f"http://{SECRET_HOST}:4711"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[RunningService]:
    async with service_with_keys({"backends": BACKENDS}) as running:
        await until_health(running, lambda health: bool(health["backends"][0].get("error")))
        yield running


async def test_without_a_key_health_is_a_word_and_a_code(service: RunningService) -> None:
    told = {"service": "corral", "status": "waiting for a backend", "reason": "no_backend"}
    assert await service.call("GET", "/health") == (200, told)
    for headers in (await headers_of(service), ADMIN):
        status, whole = await service.call("GET", "/health", headers=headers)
        assert (status, {**whole, **told}) == (200, whole)
        assert set(whole) == {*told, "version", "database", "backends", "queue"}
        assert (whole["backends"][0]["name"], whole["backends"][0]["status"]) == ("box", "absent")


async def test_without_a_key_health_says_with_a_code_that_nothing_can_be_stored(service: RunningService) -> None:
    service.jobs.ledger.store_trouble = "the disk of db.internal is full"
    try:
        told = {"service": "corral", "status": "unavailable", "reason": "cannot_store"}
        assert await service.call("GET", "/health") == (503, told)
        assert (await service.call("GET", "/health", headers=ADMIN))[1]["database"]["status"] == "failed"
    finally:
        service.jobs.ledger.store_trouble = None


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
async def test_without_a_key_metrics_have_no_labels(service: RunningService, accept: str) -> None:
    async with service.session.get("/metrics", headers={"Accept": accept}) as response:
        figures = await response.text()
    assert response.status == 200
    assert "{" not in figures
    # Parsers refuse what is not whole, such as a histogram without buckets.
    parse = parsed_open_metrics if accept.startswith("application") else parsed_text
    assert {family.name for family in parse(figures)} >= {"corral_jobs_running", "corral_database_commit_seconds"}
    assert {"corral_jobs_running", "corral_database_up", "corral_database_commit_seconds_count"} <= names_in(figures)
    for headers in (await headers_of(service), ADMIN):
        async with service.session.get("/metrics", headers={"Accept": accept, **headers}) as response:
            whole = await response.text()
        assert 'corral_backend_up{backend="box"} 0.0' in whole
        assert names_in(figures) < names_in(whole)


def names_in(figures: str) -> set[str]:
    return set(re.findall(r"^([a-z_]+)[ {]", figures, re.MULTILINE))


async def test_metrics_may_be_public() -> None:
    async with service_with_keys({"metrics.public": True}) as public:
        async with public.session.get("/metrics") as response:
            assert 'corral_backend_up{backend="simulated"}' in await response.text()
        assert "backends" in (await public.call("GET", "/health"))[1]


async def test_addresses_of_backends_are_for_admins(service: RunningService) -> None:
    """Where keys are required, and on an open service as well."""
    status, listed = await service.call("GET", "/api/v1/backends", headers=ADMIN)
    assert (status, listed["backends"][0]["url"]) == (200, BACKENDS[0]["url"])
    user = await headers_of(service)
    assert (await service.call("GET", "/api/v1/backends", headers=user))[0] == 403
    async with service_in_process({"backends": BACKENDS, "retry.max_retries": 0}) as default:
        await until_health(default, lambda health: bool(health["backends"][0].get("error")))
        for running, headers in ((service, user), (default, {})):
            for method, path in (
                *(("GET", one) for one in ("/health", "/metrics", "/api/tags", "/api/ps", "/v1/models", "/api/models")),
                *(("POST", one) for one in ("/api/show", "/api/pull")),
                ("GET", "/api/v1/backends"),
            ):
                body = b'{"model": "llama3.2"}' if method == "POST" else None
                async with running.session.request(method, path, headers=headers, data=body) as response:
                    text = await response.text()
                assert SECRET_HOST not in text, path
                assert "4711" not in text, path
