"""Jobs go only where their model is, and with what the operator allows it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from service.simulated import SimulatedModel, SimulatedServer, SimulatedSettings
from tests.support.backends import backends, until_answering
from tests.support.running import RunningService, service_in_process

ALPHA = SimulatedSettings(models=(SimulatedModel("alpha"),), parallel=4)
BETA = SimulatedSettings(models=(SimulatedModel("beta"), SimulatedModel("secret")), parallel=4)


@pytest.fixture
async def alpha() -> AsyncIterator[SimulatedServer]:
    async with SimulatedServer(ALPHA) as server:
        yield server


@pytest.fixture
async def beta() -> AsyncIterator[SimulatedServer]:
    async with SimulatedServer(BETA) as server:
        yield server


@pytest.mark.parametrize(("path", "field"), [("/api/v1/prompt", "prompt"), ("/generate", "prompt")])
async def test_a_model_that_nobody_has_is_refused_with_the_names_that_exist(
    alpha: SimulatedServer, beta: SimulatedServer, path: str, field: str
) -> None:
    async with service_in_process(backends(alpha, beta)) as service:
        await until_answering(service, 2)
        status, answer = await service.call("POST", path, {field: "p", "model": "gamma"})
        assert status == 404
        assert "'gamma'" in answer["error"]
        assert "alpha:latest, beta:latest, secret:latest" in answer["error"]
        _, page = await service.call("GET", "/api/v1/prompts")
        assert page["total"] == 0


async def test_only_the_models_that_may_be_used_are_offered(beta: SimulatedServer) -> None:
    async with service_in_process(backends(beta, models=["Beta"])) as service:
        await until_answering(service, 1)
        await service.finished(model="BETA:latest")
        status, answer = await service.call("POST", "/api/v1/prompt", {"prompt": "p", "model": "secret"})
        assert status == 404
        assert "secret:latest" not in answer["error"]


async def test_a_model_that_was_pulled_a_moment_ago_is_found(alpha: SimulatedServer) -> None:
    async with service_in_process(backends(alpha)) as service:
        await until_answering(service, 1)
        async with service.session.post(f"{alpha.url}/api/copy", json={"source": "alpha", "destination": "fresh"}):
            pass
        assert await service.look(await _accepted(service, "fresh"), lambda job: job["status"] == "completed")


async def _accepted(service: RunningService, model: str) -> str:
    """Submitted until it is taken: lists that were read a moment ago are not read again for each request."""
    while True:
        status, answer = await service.call("POST", "/api/v1/prompt", {"prompt": "p", "model": model})
        if status == 202:
            return str(answer["id"])
        assert status == 404, answer


async def test_each_job_goes_where_its_model_is(alpha: SimulatedServer, beta: SimulatedServer) -> None:
    async with service_in_process(backends(alpha, beta)) as service:
        await until_answering(service, 2)
        for number in range(3):
            await service.finished(f"a{number}", model="alpha")
            await service.finished(f"b{number}", model="beta")
        assert alpha.observations.prompts == ["a0", "a1", "a2"]
        assert beta.observations.prompts == ["b0", "b1", "b2"]


async def test_while_no_backend_answers_any_model_is_accepted_and_held(alpha: SimulatedServer) -> None:
    await alpha.refuse_connections()
    async with service_in_process(backends(alpha)) as service:
        right = await service.submit(model="alpha")
        wrong = await service.submit(model="gamma")
        assert (await service.look(right, lambda job: True))["status"] == "queued"
        await alpha.accept_connections()
        await service.until(right, "completed")
        answer = await service.until(wrong, "failed")
        assert answer["error"] == {"code": "model_not_found", "message": "model 'gamma' not found"}


async def test_a_model_that_vanished_fails_its_jobs_clearly(alpha: SimulatedServer) -> None:
    # Whoever looks meanwhile would refuse the job at once.
    async with service_in_process({**backends(alpha), "health.probe_interval_seconds": 3600}) as service:
        await service.finished(model="alpha")
        async with service.session.delete(f"{alpha.url}/api/delete", json={"model": "alpha"}):
            pass
        answer = await service.until(await service.submit(model="alpha"), "failed")
        assert answer["error"]["code"] == "model_not_found"


async def test_a_job_whose_model_vanished_here_is_answered_by_who_still_has_it(alpha: SimulatedServer) -> None:
    async with SimulatedServer(ALPHA) as other, service_in_process(backends(alpha, other)) as service:
        await until_answering(service, 2)
        async with service.session.delete(f"{alpha.url}/api/delete", json={"model": "alpha"}):
            pass
        for number in range(4):
            await service.finished(f"p{number}", model="alpha")
        assert sorted(other.observations.prompts) == ["p0", "p1", "p2", "p3"]


async def test_a_job_for_a_backend_that_was_never_there_yet_is_held_for_it(
    alpha: SimulatedServer, beta: SimulatedServer
) -> None:
    await alpha.refuse_connections()
    await beta.refuse_connections()
    async with service_in_process(backends(alpha, beta)) as service:
        job_id = await service.submit(model="beta")
        await alpha.accept_connections()
        answer = await service.look(job_id, lambda job: "last_error" in job)
        assert (answer["status"], answer["failures"]) == ("queued", 0)
        assert answer["last_error"]["code"] == "model_not_found"
        await beta.accept_connections()
        await service.look(job_id, lambda job: job["status"] == "completed")


@pytest.mark.parametrize("path", ["/api/v1/prompt", "/generate"])
async def test_the_operators_limits_are_in_what_ollama_is_asked(alpha: SimulatedServer, path: str) -> None:
    limits = {"num_ctx": 4096, "default_num_ctx": 4096, "max_tokens": 5, "default_keep_alive": 60}
    async with service_in_process({**backends(alpha), "models": {"ALPHA": limits}}) as service:
        asked = {"prompt": "p", "model": "alpha:latest", "options": {"num_ctx": 99_999, "num_predict": 0, "seed": 1}}
        status, _ = await service.call("POST", path, asked)
        assert status in (200, 202)
        await alpha.observations.until(lambda seen: seen.answers == 1)
        [seen] = alpha.observations.seen
        body = json.loads(seen.body)
        assert body["model"] == "alpha:latest"
        assert body["options"] == {"num_ctx": 4096, "num_predict": 5, "seed": 1}
        assert body["keep_alive"] == 60


async def test_stray_context_lengths_cause_no_load_under_a_fixed_one(alpha: SimulatedServer) -> None:
    limits = {"num_ctx": 2048, "default_num_ctx": 2048}
    async with service_in_process({**backends(alpha), "models": {"alpha": limits}}) as service:
        for num_ctx in (512, 2048, 8192, None):
            await service.finished(model="alpha", options={} if num_ctx is None else {"num_ctx": num_ctx})
        assert alpha.observations.loads.total() == 1
