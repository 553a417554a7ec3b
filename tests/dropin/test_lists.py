"""What there is and what is loaded, over several backends: merged, quick, and only what may be used."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from service.simulated import Fault, FaultKind, SimulatedModel, SimulatedServer, SimulatedSettings
from tests.support.running import RunningService, service_in_process

NAMESPACED = "huggingface/some.Thing:Q4_K_M"


def models(*names: str, day: int = 1, version: str = "0.24.0") -> SimulatedSettings:
    return SimulatedSettings(
        models=tuple(SimulatedModel(name, modified_at=f"2026-11-{day:02}T10:00:00Z") for name in names),
        version=version,
    )


@asynccontextmanager
async def two_backends(**restriction: Any) -> AsyncIterator[tuple[RunningService, SimulatedServer, SimulatedServer]]:
    """``one`` has llama3.2 and shared; ``two`` has qwen3, shared and one with a namespace."""
    async with (
        SimulatedServer(models("llama3.2", "shared", day=2, version="0.30.1")) as one,
        SimulatedServer(models("qwen3:4b", "SHARED:latest", NAMESPACED, day=3, version="0.9.3-rc1")) as two,
    ):
        backends = [{"name": "one", "url": one.url, **restriction}, {"name": "two", "url": two.url}]
        async with service_in_process({"backends": backends}) as service:
            # Both are known from here on.
            await service.call("GET", "/api/tags")
            yield service, one, two


async def names(service: RunningService) -> set[str]:
    return {entry["name"] for entry in (await service.call("GET", "/api/tags"))[1]["models"]}


async def test_models_of_all_backends_are_listed_once_newest_first() -> None:
    async with two_backends() as (service, _, _):
        _, answer = await service.call("GET", "/api/tags")
        listed = [entry["name"] for entry in answer["models"]]
        assert sorted(listed) == sorted(["llama3.2:latest", "shared:latest", "qwen3:4b", NAMESPACED])
        times = [entry["modified_at"] for entry in answer["models"]]
        assert times == sorted(times, reverse=True)
        _, openai = await service.call("GET", "/v1/models")
        assert {entry["id"] for entry in openai["data"]} == set(listed)
        assert {entry["owned_by"] for entry in openai["data"]} == {"library", "huggingface"}


async def test_one_model_is_found_by_any_of_its_spellings_and_with_a_slash_in_its_name() -> None:
    async with two_backends() as (service, _, _):
        for name in ("QWEN3:4b", "Shared", "llama3.2:latest", NAMESPACED, NAMESPACED.lower()):
            status, entry = await service.call("GET", f"/v1/models/{name}")
            assert (status, entry["id"], entry["object"]) == (200, name, "model")
        status, answer = await service.call("GET", "/v1/models/no/such")
        assert (status, answer["error"]["type"]) == (404, "not_found_error")


async def test_the_version_is_the_lowest() -> None:
    async with two_backends() as (service, _, _):
        assert await service.call("GET", "/api/version") == (200, {"version": "0.9.3-rc1"})


async def test_show_and_calls_go_where_the_model_is() -> None:
    async with two_backends() as (service, one, two):
        status, shown = await service.call("POST", "/api/show", {"model": "Qwen3:4B"})
        assert (status, shown["modified_at"]) == (200, "2026-11-03T10:00:00Z")
        for model in ("qwen3:4b", NAMESPACED, "llama3.2"):
            status, _ = await service.call("POST", "/api/generate", {"model": model, "prompt": "x", "stream": False})
            assert status == 200
        assert one.observations.requests["/api/generate"] == 1
        assert two.observations.requests["/api/generate"] == 2
        _, loaded = await service.call("GET", "/api/ps")
        assert {entry["name"] for entry in loaded["models"]} == {"llama3.2:latest", "qwen3:4b", NAMESPACED}


async def test_an_unload_goes_only_where_the_model_is_loaded() -> None:
    async with two_backends() as (service, one, two):
        await service.call("POST", "/api/generate", {"model": "shared"})
        (holder,) = [server for server in (one, two) if server.observations.loads.total()]
        status, answer = await service.call("POST", "/api/generate", {"model": "shared", "keep_alive": 0})
        assert (status, answer["done_reason"]) == (200, "unload")
        assert one.observations.requests["/api/generate"] + two.observations.requests["/api/generate"] == 2
        assert holder.observations.requests["/api/generate"] == 2
        assert (await service.call("GET", "/api/ps"))[1] == {"models": []}


async def test_a_model_that_the_configuration_hides_is_not_there() -> None:
    async with two_backends(models=["llama3.2"]) as (service, _, _):
        assert await names(service) == {"llama3.2:latest", "SHARED:latest", "qwen3:4b", NAMESPACED}
    async with SimulatedServer(models("llama3.2", "secret")) as server:
        backend = {"name": "one", "url": server.url, "models": ["llama3.2"]}
        async with service_in_process({"backends": [backend]}) as service:
            assert await names(service) == {"llama3.2:latest"}
            for path, body in (
                ("/api/generate", {"model": "secret", "prompt": "x"}),
                ("/api/show", {"model": "secret"}),
                ("/v1/chat/completions", {"model": "secret", "messages": [{"role": "user", "content": "x"}]}),
            ):
                status, answer = await service.call("POST", path, body)
                assert status == 404
                assert "model 'secret' not found" in json.dumps(answer, ensure_ascii=False)
            assert (await service.call("GET", "/v1/models/secret"))[0] == 404
            assert server.observations.requests["/api/generate"] == 0


async def test_a_backend_that_is_gone_takes_its_models_along_and_leaves_the_others() -> None:
    async with two_backends() as (service, _, two):
        await two.stop()
        status, _ = await service.call("POST", "/api/generate", {"model": "llama3.2", "prompt": "x", "stream": False})
        assert status == 200
        await service.call("GET", "/api/models")
        assert (await service.call("GET", "/api/ps"))[0] == 200
        # The list is asked for again until the backend has been missed.
        while await names(service) != {"llama3.2:latest", "shared:latest"}:
            pass


async def test_a_list_that_a_lone_backend_does_not_give_is_the_last_that_it_gave() -> None:
    async with service_in_process() as service:
        expected = await names(service)
        for path in ("/api/tags", "/api/ps", "/v1/models"):
            service.ollama.arm(Fault(kind=FaultKind.NOT_OLLAMA, endpoint=path, times=1))
            status, answer = await service.call("GET", path)
            assert status == 200
            assert path == "/api/ps" or len(answer.get("models") or answer["data"]) == len(expected)


async def test_the_gateways_own_list_says_where_models_are_and_which_is_the_default() -> None:
    async with two_backends() as (service, _, _):
        await service.call("POST", "/api/generate", {"model": "qwen3:4b"})
        status, answer = await service.call("GET", "/api/models")
        assert (status, answer["default"]) == (200, "llama3.2")
        found = {entry["name"]: entry for entry in answer["models"]}
        assert found["shared:latest"]["backends"] == ["one", "two"]
        assert found["qwen3:4b"]["is_loaded"] is True
        assert found["llama3.2:latest"]["is_loaded"] is False
        assert all(entry["is_available"] for entry in answer["models"])


async def test_without_any_backend_lists_are_503_in_each_dialects_shape_and_jobs_are_taken() -> None:
    backend = {"name": "one", "url": "http://127.0.0.1:9"}
    async with service_in_process({"backends": [backend]}) as service:
        for path in ("/api/tags", "/api/ps", "/api/version"):
            status, answer = await service.call("GET", path)
            assert status == 503
            assert isinstance(answer["error"], str)
        status, answer = await service.call("GET", "/v1/models")
        assert (status, answer["error"]["type"]) == (503, "api_error")
        assert (await service.call("GET", "/api/models"))[0] == 200
        headers = {"X-Job-Deadline-Seconds": "0.05"}
        body = {"model": "llama3.2", "prompt": "x"}
        assert (await service.call("POST", "/api/generate", body, headers=headers))[0] == 504
