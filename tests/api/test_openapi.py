"""The API's document: it knows every route, and every reply looks as it says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
import schemathesis

from service.api.documentation.document import OPERATIONS, TAGS
from service.simulated import SimulatedModel, SimulatedSettings
from tests.support.access import ADMIN, finished, headers_of, made_key, service_with_keys
from tests.support.forms import form_type, speech
from tests.support.openapi import Document, served_routes
from tests.support.running import PATIENCE_SECONDS, RunningService

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = (
    SimulatedModel("llama3.2", capabilities=("completion", "tools", "thinking")),
    SimulatedModel("nomic-embed-text", capabilities=("embedding",)),
    SimulatedModel("painter", capabilities=("image",)),
)
PICTURE = "data:image/png;base64,aGk="
FORM = {"Content-Type": form_type()}
CHAT = [{"role": "user", "content": "Why is the sky blue?"}]
UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[RunningService]:
    settings = SimulatedSettings(models=MODELS, parallel=8, tokens=5)
    async with service_with_keys({"server.max_body": 4096}, required=False, settings=settings) as running:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await running.call("GET", "/api/version"))[0] != 200:
                pass
        # It is number 1, which one of the calls asks for; whichever of the others this process runs.
        await running.finished()
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document(service: RunningService) -> Document:
    status, fields = await service.call("GET", "/openapi.json")
    assert status == 200
    return Document(fields)


async def test_it_knows_every_route_that_is_served_and_no_other(service: RunningService, document: Document) -> None:
    assert {(method, path) for method, path, _ in document.operations()} == served_routes(service.app)
    assert set(OPERATIONS) == served_routes(service.app)


async def test_it_is_what_openapi_calls_a_document(document: Document) -> None:
    schemathesis.openapi.from_dict(document.fields).validate()
    assert document.fields["openapi"].startswith("3.1")


async def test_every_operation_is_named_once_and_has_its_place(document: Document) -> None:
    names = [operation["operationId"] for _, _, operation in document.operations()]
    assert len(names) == len(set(names))
    for _, path, operation in document.operations():
        in_path = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
        assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path
        assert set(operation["tags"]) <= set(TAGS)
        assert operation["summary"]


async def test_what_stands_below_a_field_is_its_description(document: Document) -> None:
    schemas = document.fields["components"]["schemas"]
    for name, field, words in (
        ("JobReply", "position", "only while it waits for its turn"),
        # One that it has from JobReply, and one of its own.
        ("ResultReply", "attempt", "Rises whenever"),
        ("ResultReply", "endpoint", "What the model was asked by"),
        ("PromptRequest", "not_before", "not begun earlier"),
    ):
        assert words in schemas[name]["properties"][field]["description"]
    [wait, _] = [
        one
        for one in document.fields["paths"]["/api/v1/prompt/{id}/status"]["get"]["parameters"]
        if one["in"] == "query"
    ]
    assert wait["description"].startswith("How many seconds")
    assert wait["schema"] == {"type": "number", "minimum": 0, "maximum": 60, "default": 0.0}


async def test_a_request_model_says_what_it_takes(document: Document) -> None:
    schema = {"$ref": "#/components/schemas/PromptRequest"}
    for taken in (
        {"prompt": "x", "priority": "high", "keep_alive": "5m", "think": "low", "format": {"type": "object"}},
        {"messages": CHAT, "priority": -1, "keep_alive": 3, "think": True, "format": "json", "not_before": 3.5},
    ):
        document.check_value(schema, taken)
    mistakes: tuple[dict[str, Any], ...] = (
        {"prompt": 3},
        {"priority": "urgent"},
        {"promt": "x"},
        {"think": "much"},
        {"messages": []},
    )
    for refused in mistakes:
        with pytest.raises(AssertionError):
            document.check_value(schema, refused)


async def test_it_tells_who_may_call(document: Document) -> None:
    def security(method: str, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = document.fields["paths"][path][method]["security"]
        return found

    assert security("get", "/health") == []
    assert {} in security("post", "/api/v1/prompt")
    assert {} not in security("post", "/api/keys")
    async with service_with_keys() as with_keys:
        status, fields = await with_keys.call("GET", "/openapi.json")
        assert status == 200
        assert {} not in fields["paths"]["/api/v1/prompt"]["post"]["security"]


class Call(NamedTuple):
    """A request and the status that it is answered with. Of the path, ``{…}`` are filled in by the test."""

    method: str
    path: str
    status: int
    body: Any = None
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    values: Mapping[str, str] = {}


def relayed(path: str, body: dict[str, Any], *, stream: bool = True) -> list[Call]:
    """Whole and streamed, of a model that is there and of one that is not, and what cannot be read."""
    whole = Call("POST", path, 200, body)
    calls = [whole, whole._replace(body={**body, "model": "nosuch"}, status=404), whole._replace(body=b"{", status=400)]
    calls += [
        whole._replace(headers={"X-Priority": "urgent"}, status=400),
        whole._replace(body=b"x" * 5000, status=413),
    ]
    return [*calls, whole._replace(body={**body, "stream": True})] if stream else calls


NAMED = {"model": "llama3.2", "stream": False}
CALLS = [
    Call("POST", "/api/v1/prompt", 202, {"prompt": "x"}),
    Call("POST", "/api/v1/prompt", 400, {"promt": "x"}),
    Call("POST", "/api/v1/prompt", 404, {"prompt": "x", "model": "nosuch"}),
    Call("POST", "/api/v1/prompt", 413, b"x" * 5000),
    Call("GET", "/api/v1/prompt/{id}/status", 200),
    Call("GET", "/api/v1/prompt/{id}/status", 404, values={"id": UNKNOWN}),
    Call("GET", "/api/v1/prompt/{id}/status", 400, query={"wait": "long"}),
    Call("GET", "/api/v1/prompt/{id}/result", 200),
    Call("GET", "/api/v1/prompt/{id}/result", 404, values={"id": UNKNOWN}),
    Call("GET", "/api/v1/prompt/{id}/request", 200),
    Call("GET", "/api/v1/prompt/{id}/request", 404, values={"id": UNKNOWN}),
    Call("GET", "/api/v1/prompt/{id}/stream", 200),
    Call("GET", "/api/v1/prompt/{id}/stream", 200, headers={"Last-Event-ID": "1.3"}),
    Call("GET", "/api/v1/prompt/{id}/stream", 400, headers={"Last-Event-ID": "x"}),
    Call("GET", "/api/v1/prompt/{id}/stream", 404, values={"id": UNKNOWN}),
    Call("DELETE", "/api/v1/prompt/{id}", 200),
    Call("DELETE", "/api/v1/prompt/{id}", 404, values={"id": UNKNOWN}),
    Call("POST", "/api/v1/prompts/cancel", 200, body={"filter": {"status": ["queued"], "model": "other"}}),
    Call("POST", "/api/v1/prompts/cancel", 400, body={"filters": {}}),
    Call("POST", "/api/v1/prompts/purge", 200, body={"filter": {"status": ["cancelled"], "model": "other"}}),
    Call("POST", "/api/v1/prompts/purge", 400, body={"filter": {}}),
    Call("GET", "/api/v1/prompts", 200),
    Call("GET", "/api/v1/prompts", 200, query={"q": "x", "page_size": "1"}),
    Call("GET", "/api/v1/prompts", 400, query={"page": "0"}),
    Call("GET", "/api/v1/ws", 400),
    Call("POST", "/generate", 200, {"prompt": "x"}),
    Call("POST", "/generate", 400, {}),
    Call("GET", "/status/{request_id}", 200, values={"request_id": "1"}),
    Call("GET", "/status/{request_id}", 404, values={"request_id": "99999999999999999999"}),
    Call("GET", "/requests", 200),
    Call("GET", "/requests", 400, query={"status": "odd"}),
    *relayed("/api/generate", {**NAMED, "prompt": "x"}),
    *relayed("/api/chat", {**NAMED, "messages": CHAT}),
    *relayed("/v1/chat/completions", {**NAMED, "messages": CHAT}),
    *relayed("/v1/completions", {**NAMED, "prompt": "x"}),
    *relayed("/v1/responses", {**NAMED, "input": "x"}),
    *relayed("/v1/messages", {**NAMED, "messages": CHAT, "max_tokens": 9}),
    *relayed("/v1/images/generations", {"model": "painter", "prompt": "x"}, stream=False),
    *relayed("/v1/images/edits", {"model": "painter", "prompt": "x", "image": PICTURE}, stream=False),
    # An Ollama of the tests' version has no such route.
    Call("POST", "/v1/systemone", 404, {"model": "llama3.2", "state": "x", "questions": {}}),
    Call("POST", "/v1/systemone", 400, b"{"),
    Call("POST", "/v1/audio/transcriptions", 200, speech(model="llama3.2"), FORM),
    Call("POST", "/v1/audio/transcriptions", 404, speech(model="nosuch"), FORM),
    Call("POST", "/v1/audio/transcriptions", 400, speech(), FORM),
    Call("POST", "/v1/audio/transcriptions", 413, b"x" * 5000, FORM),
    *relayed("/api/embed", {"model": "nomic-embed-text", "input": ["x", "y"]}, stream=False),
    *relayed("/api/embeddings", {"model": "nomic-embed-text", "prompt": "x"}, stream=False),
    *relayed("/v1/embeddings", {"model": "nomic-embed-text", "input": "x"}, stream=False),
    Call("POST", "/api/generate", 500, {**NAMED, "prompt": "x", "options": {"num_ctx": "many"}}),
    Call("POST", "/api/generate", 200, {"model": "llama3.2", "keep_alive": 0}),
    Call("GET", "/api/tags", 200),
    Call("GET", "/api/ps", 200),
    Call("GET", "/api/version", 200),
    Call("POST", "/api/show", 200, {"model": "llama3.2"}),
    Call("POST", "/api/show", 404, {"model": "nosuch"}),
    Call("GET", "/api/status", 200),
    Call("POST", "/api/me", 401),
    Call("GET", "/api/experimental/model-recommendations", 200),
    Call("POST", "/api/signout", 401, headers=ADMIN),
    Call("DELETE", "/api/user/keys/{key}", 401, headers=ADMIN, values={"key": "c2ltdWxhdGVk"}),
    Call("DELETE", "/api/user/keys/{key}", 400, headers=ADMIN, values={"key": "a.b"}),
    Call("POST", "/api/experimental/web_search", 403, {"query": "x"}, ADMIN),
    Call("POST", "/api/experimental/web_fetch", 403, {"url": "https://example.org"}, ADMIN),
    Call("POST", "/api/pull", 401, {"model": "nosuch"}),
    Call("POST", "/api/pull", 403, {"model": "nosuch"}, {"User-Agent": "ollama/0.33.0 (amd64 linux) Go/go1.26"}),
    Call("POST", "/api/pull", 200, {"model": "llama3.2", "stream": False}),
    Call("POST", "/api/pull", 200, {"model": "llama3.2"}),
    Call("POST", "/api/pull", 400, {"model": "llama3.2", "Model": "other"}),
    Call("POST", "/api/pull", 200, {"model": "llama3.2", "stream": False}, ADMIN),
    Call("POST", "/api/pull", 200, {"model": "llama3.2"}, ADMIN),
    Call("POST", "/api/push", 200, {"model": "llama3.2"}, ADMIN),
    Call("POST", "/api/push", 404, {"model": "llama3.2"}, {**ADMIN, "X-Backend": "nosuch"}),
    Call("POST", "/api/create", 200, {"model": "other", "from": "llama3.2"}, ADMIN),
    Call("POST", "/api/copy", 200, {"source": "llama3.2", "destination": "third"}, ADMIN),
    Call("POST", "/api/copy", 404, {"source": "nosuch", "destination": "third"}, ADMIN),
    Call("DELETE", "/api/delete", 200, {"model": "third"}, ADMIN),
    Call("DELETE", "/api/delete", 404, {"model": "nosuch"}, ADMIN),
    Call("HEAD", "/api/blobs/{digest}", 404, headers=ADMIN, values={"digest": f"sha256:{'0' * 64}"}),
    Call("POST", "/api/blobs/{digest}", 400, b"x", ADMIN, values={"digest": f"sha256:{'0' * 64}"}),
    Call("GET", "/v1/models", 200),
    Call("GET", "/v1/models/{name}", 200, values={"name": "llama3.2"}),
    Call("GET", "/v1/models/{name}", 404, values={"name": "nosuch"}),
    Call("GET", "/v1/models/{name}", 404, values={"name": "no/such"}),
    Call("GET", "/api/models", 200),
    Call("GET", "/api/keys", 200, headers=ADMIN),
    Call("GET", "/api/keys", 401),
    Call("POST", "/api/keys", 201, {"name": "x", "rate_limit": 5, "expires": "2999-01-31"}, ADMIN),
    Call("POST", "/api/keys", 400, {"name": ""}, ADMIN),
    Call("GET", "/api/keys/{id}", 200, headers=ADMIN),
    Call("GET", "/api/keys/{id}", 404, headers=ADMIN, values={"id": "nosuch"}),
    Call("DELETE", "/api/keys/{id}", 200, headers=ADMIN),
    Call("DELETE", "/api/keys/{id}", 404, headers=ADMIN, values={"id": "nosuch"}),
    Call("POST", "/api/token", 200, headers=ADMIN),
    Call("POST", "/api/token", 401),
    Call("GET", "/api/stats", 200, headers=ADMIN),
    Call("POST", "/api/stats/reset", 200, headers=ADMIN),
    Call("POST", "/api/stats/reset", 401),
    Call("GET", "/api/audit", 200, headers=ADMIN),
    Call("GET", "/api/audit", 400, headers=ADMIN, query={"action": "none"}),
    Call("GET", "/api/audit", 401),
    Call("GET", "/api/v1/backends", 200, headers=ADMIN),
    Call("GET", "/api/v1/backends", 401),
    Call("POST", "/api/v1/backends/{name}/drain", 404, headers=ADMIN, values={"name": "nosuch"}),
    Call("POST", "/api/v1/backends/{name}/drain", 200, headers=ADMIN, values={"name": "simulated"}),
    Call("POST", "/api/v1/backends/{name}/resume", 200, headers=ADMIN, values={"name": "simulated"}),
    Call("GET", "/health", 200),
    Call("GET", "/", 200),
    Call("GET", "/", 200, headers={"Accept": "text/html"}),
    Call("GET", "/list", 200),
    Call("GET", "/static/{name}", 200, values={"name": "api.js"}),
    Call("GET", "/static/{name}", 404, values={"name": "nosuch"}),
    Call("GET", "/metrics", 200),
    Call("GET", "/openapi.json", 200),
    Call("GET", "/docs", 200),
    Call("GET", "/redoc", 200),
    Call("GET", "/docs/assets/{name}", 200, values={"name": "swagger-ui.css"}),
    Call("GET", "/docs/assets/{name}", 404, values={"name": "__init__.py"}),
]


BEFORE = {"/api/delete": ("/api/copy", {"source": "llama3.2", "destination": "third"})}
"""What a call needs, whichever others this process has made."""
AFTER = {"/api/v1/backends/simulated/drain": ("/api/v1/backends/simulated/resume", None)}
"""What undoes a call, as the other tests have the same service."""


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.path} {call.status}")
async def test_a_reply_looks_as_the_document_says(service: RunningService, document: Document, call: Call) -> None:
    values = {"id": "", **call.values}
    if "id" not in call.values and "{id}" in call.path:
        is_key = call.path.startswith("/api/keys")
        values["id"] = (await made_key(service))["id"] if is_key else await finished(service, {})
    path = call.path
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", value)
    data = call.body if call.body is None or isinstance(call.body, bytes) else json.dumps(call.body).encode()
    async with asyncio.timeout(PATIENCE_SECONDS):
        if path in BEFORE:
            await service.call("POST", *BEFORE[path], headers=ADMIN)
        async with service.session.request(
            call.method, path, data=data, headers=call.headers, params=call.query
        ) as response:
            body = b"" if call.method == "HEAD" else await response.read()
        if path in AFTER:
            await service.call("POST", *AFTER[path], headers=ADMIN)
    assert response.status == call.status, body
    document.check(call.method, call.path, response.status, response.headers.get("Content-Type", ""), body)


async def test_every_operation_is_called_here() -> None:
    assert {(call.method, call.path) for call in CALLS} == set(OPERATIONS)


async def test_a_job_looks_as_the_document_says_wherever_it_stands(service: RunningService, document: Document) -> None:
    reply = {"$ref": "#/components/schemas/JobReply"}
    result = {"$ref": "#/components/schemas/ResultReply"}
    waiting = await service.submit(not_before=time.time() + 86_400)
    expiring = await service.submit(expires_in_seconds=31_000_000)
    failing = await service.submit(options={"num_ctx": "many"})
    await service.until(failing, "failed")
    thinking = await service.finished(think=True)
    for job_id in (waiting, expiring, failing, thinking):
        for schema, path in ((reply, "status"), (result, "result")):
            _, job = await service.call("GET", f"/api/v1/prompt/{job_id}/{path}")
            document.check_value(schema, job)
    await service.call("DELETE", f"/api/v1/prompt/{waiting}")
    document.check_value(reply, (await service.call("GET", f"/api/v1/prompt/{waiting}/status"))[1])


SUBMISSIONS: list[tuple[str, dict[str, Any]]] = [
    ("/api/v1/prompt", {"prompt": "x"}),
    ("/generate", {"prompt": "x"}),
    ("/api/generate", {**NAMED, "prompt": "x"}),
    ("/v1/completions", {**NAMED, "prompt": "x"}),
    ("/v1/messages", {**NAMED, "messages": CHAT, "max_tokens": 9}),
]
"""One for each dialect."""


async def test_a_limit_is_told_as_the_document_says(service: RunningService, document: Document) -> None:
    headers = await headers_of(service, rate_limit=1)
    for path, body in SUBMISSIONS:
        await service.call("POST", path, body, headers=headers)
        async with service.session.post(path, json=body, headers=headers) as response:
            assert response.status == 429
            document.check("POST", path, 429, response.content_type, await response.read())


async def test_another_body_under_one_key_is_told_as_the_document_says(
    service: RunningService, document: Document
) -> None:
    for path, body in SUBMISSIONS:
        headers = {"Idempotency-Key": f"key of {path}"}
        await service.call("POST", path, body, headers=headers)
        async with service.session.post(path, json={**body, "priority": "low"}, headers=headers) as response:
            assert response.status == 422
            document.check("POST", path, 422, response.content_type, await response.read())
