"""The habits of Open WebUI's server, as they were seen: it works unchanged, as an Ollama and as an OpenAI server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp

from service.simulated import Fault, FaultKind, SimulatedModel, SimulatedSettings
from tests.support.access import ADMIN, headers_of, service_with_keys
from tests.support.backends import until_health
from tests.support.raw_server import Exchange, raw_server, whole
from tests.support.running import RunningService, service_in_process

SETTINGS = SimulatedSettings(
    models=(
        SimulatedModel("llama3.2", capabilities=("completion", "tools")),
        SimulatedModel("nomic-embed-text", capabilities=("embedding",)),
    ),
    parallel=2,
)
JSON = {"Content-Type": "application/json"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"tool_{number}",
            "description": "x" * 900,
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
        },
    }
    for number in range(20)
]


async def once(service: RunningService, method: str, path: str, body: Any = None) -> Any:
    """One request on a connection of its own, with a Content-Type whatever the method."""
    data = None if body is None else json.dumps(body)
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), trust_env=True) as session,
        session.request(method, service.url + path, data=data, headers=JSON) as reply,
    ):
        assert reply.status == 200, await reply.text()
        return await reply.json(content_type=None)


async def test_the_connection_is_checked_and_its_models_are_listed() -> None:
    async with service_in_process(settings=SETTINGS) as service:
        version = (await once(service, "GET", "/api/version"))["version"]
        assert [int(part) for part in version.split(".")] == [0, 24, 0]
        tags = await once(service, "GET", "/api/tags")
        assert (await once(service, "GET", "/api/ps"))["models"] == []
        for entry in tags["models"]:
            assert entry["name"].count(":") == 1
            assert await once(service, "POST", "/api/show", {"name": entry["name"]})
        listed = await once(service, "GET", "/v1/models")
        assert [entry["id"] for entry in listed["data"]] == [entry["name"] for entry in tags["models"]]


async def test_a_title_is_asked_for_while_the_first_answer_still_runs() -> None:
    async with service_in_process(settings=SETTINGS) as service, aiohttp.ClientSession(service.url) as session:
        stall = service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3, times=1, endpoint="/api/chat"))
        page = {
            "model": "llama3.2:latest",
            "messages": [{"role": "user", "content": "Why is the sky blue?"}],
            "tools": TOOLS,
            "options": {},
            "stream": True,
        }
        async with session.post("/api/chat", json=page) as first:
            await first.content.readline()
            title = {**page, "tools": [], "messages": [{"role": "user", "content": "Write a title."}], "stream": False}
            assert (await once(service, "POST", "/api/chat", title))["done"] is True
            stall.release()
            last = [json.loads(line) async for line in first.content][-1]
            assert last["done"] is True


async def test_a_title_of_low_priority_waits_behind_the_answer_of_the_same_key() -> None:
    async with service_with_keys(seats=1) as service:
        key = await headers_of(service, owner_header="X-OpenWebUI-User-Id") | {"X-OpenWebUI-User-Id": "anna"}
        stall = service.stall(times=1)
        await service.call("POST", "/api/v1/prompt", {"prompt": "Another chat."}, headers=key)
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        calls = []
        for prompt, more in (("Write a title.", {"X-Priority": "low"}), ("Why is the sky blue?", {})):
            body = {"model": "llama3.2", "messages": [{"role": "user", "content": prompt}], "stream": False}
            calls.append(asyncio.create_task(service.call("POST", "/api/chat", body, headers=key | more)))
            await until_health(service, lambda health: health["queue"]["queued"] == len(calls))
        stall.release()
        assert [status for status, _ in await asyncio.gather(*calls)] == [200, 200]
        assert service.ollama.observations.prompts[1:] == ["Why is the sky blue?", "Write a title."]


async def test_models_are_pulled_and_deleted_with_an_admin_key_in_the_connection_only() -> None:
    async with service_with_keys() as service:
        user = await headers_of(service)
        for method, path, body in (
            ("POST", "/api/pull", {"model": "tinyllama", "stream": False}),
            ("DELETE", "/api/delete", {"model": "llama3.2"}),
        ):
            status, answer = await service.call(method, path, body, headers=user)
            assert (status, "admin" in answer["error"]) == (403, True)
            async with service.session.request(method, path, json=body, headers=ADMIN) as reply:
                assert reply.status == 200


async def test_a_file_of_thirty_chunks_makes_thirty_embeddings_at_once() -> None:
    async with service_in_process(settings=SETTINGS) as service:
        bodies = [
            {"model": "nomic-embed-text:latest", "input": [f"chunk {number}"], "truncate": True} for number in range(30)
        ]
        replies = await asyncio.gather(*(once(service, "POST", "/api/embed", body) for body in bodies))
        assert [len(reply["embeddings"]) for reply in replies] == [1] * 30
        assert len({json.dumps(reply["embeddings"]) for reply in replies}) == 30


async def test_a_model_is_unloaded_by_a_prompt_that_is_empty() -> None:
    async with service_in_process(settings=SETTINGS) as service:
        await once(service, "POST", "/api/generate", {"model": "llama3.2"})
        body = {"model": "llama3.2:latest", "keep_alive": 0, "prompt": ""}
        assert (await once(service, "POST", "/api/generate", body))["done_reason"] == "unload"
        assert await once(service, "GET", "/api/ps") == {"models": []}


async def test_stop_closes_the_connection_and_ends_the_answer() -> None:
    async with service_in_process(settings=SETTINGS) as service:
        service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3, endpoint="/v1/chat/completions"))
        body = {"model": "llama3.2:latest", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with (
            aiohttp.ClientSession(service.url) as session,
            session.post("/v1/chat/completions", json=body) as reply,
        ):
            await reply.content.readline()
        await service.ollama.observations.until(lambda seen: seen.closed_connections == 1)


async def test_the_headers_of_ollamas_reply_travel_on() -> None:
    known: dict[str, Any] = {
        "/api/version": {"version": "0.24.0"},
        "/api/tags": {"models": [{"name": "llama3.2:latest", "model": "llama3.2:latest"}]},
        "/api/ps": {"models": []},
    }
    answer = json.dumps({"model": "llama3.2", "message": {"role": "assistant", "content": "x"}, "done": True}).encode()

    async def serve(exchange: Exchange) -> None:
        if exchange.path in known:
            await exchange.send(whole(json.dumps(known[exchange.path]).encode()))
            return
        head, _, body = whole(answer).partition(b"\r\n\r\n")
        added = b"X-Ratelimit-Limit: 5\r\nServer: nginx\r\nConnection: keep-alive\r\nAccess-Control-Allow-Origin: *"
        await exchange.send(head + b"\r\n" + added + b"\r\n\r\n" + body)

    async with raw_server(serve) as ollama:
        backend = {"name": "proxied", "url": ollama.url}
        async with service_in_process({"backends": [backend]}) as service:
            page = {"Origin": "https://chat.example.org"}
            body = {"model": "llama3.2", "messages": [{"role": "user", "content": "x"}], "stream": False}
            async with service.session.post("/api/chat", json=body, headers=page) as reply:
                assert await reply.read() == answer
                assert reply.headers["X-Ratelimit-Limit"] == "5"
                assert reply.headers.getall("Access-Control-Allow-Origin") == ["https://chat.example.org"]
                assert "nginx" not in reply.headers.getall("Server")
