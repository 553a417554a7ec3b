"""The simulated Ollama reads requests as Go does, and refuses them in Ollama's words (wire contract 0, 1 and 3.2)."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from service.simulated import RECORDED_MODELS, SimulatedModel
from tests.support.simulation import TINY, json_lines, simulated_ollama, sse_events

if sys.version_info >= (3, 14):
    from compression.zstd import compress as zstd
else:
    from backports.zstd import compress as zstd

MODELS = (
    *RECORDED_MODELS,
    SimulatedModel("team/thinker:1b", capabilities=("completion", "tools", "thinking"), trained_context=8192),
)
SETTINGS = replace(TINY, models=MODELS, tokens=3)
HELLO = [{"role": "user", "content": "hello"}]


async def _post(path: str, body: Any, **headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, str | bytes) else json.dumps(body)
    async with simulated_ollama(SETTINGS) as (_, session), session.post(path, data=data, headers=headers) as response:
        received = await response.read()
        if response.content_type == "application/json":
            return response.status, json.loads(received)
        return response.status, received


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/api/generate", "", "missing request body"),
        ("/api/chat", " \n ", "missing request body"),
        ("/v1/chat/completions", "", "EOF"),
        ("/v1/messages", "", "EOF"),
        ("/api/generate", "{nope", "invalid character 'n' looking for beginning of object key string"),
        ("/api/generate", "nope", "invalid character 'o' in literal null (expecting 'u')"),
        ("/api/generate", '{"model" "x"}', "invalid character '\"' after object key"),
        ("/api/generate", '{"model": "x" "y"}', "invalid character '\"' after object key:value pair"),
        ("/api/generate", '{"context": [1 2]}', "invalid character '2' after array element"),
        ("/api/generate", '{"model": ?}', "invalid character '?' looking for beginning of value"),
        ("/api/generate", '{"model": NaN}', "invalid character 'N' looking for beginning of value"),
        ("/api/generate", '{"model": "x', "unexpected EOF"),
        ("/api/generate", '{"model":', "unexpected EOF"),
        ("/api/generate", '{"model": "a\nb"}', "invalid character '\\n' in string literal"),
        ("/api/generate", '{"model": "\\x"}', "invalid character 'x' in string escape code"),
        ("/api/generate", "[1]", "json: cannot unmarshal array into Go value of type api.GenerateRequest"),
        ("/api/chat", "5", "json: cannot unmarshal number into Go value of type api.ChatRequest"),
        (
            "/api/chat",
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "json: cannot unmarshal array into Go struct field Alias.content of type string",
        ),
        (
            "/api/generate",
            {"stream": "yes"},
            "json: cannot unmarshal string into Go struct field GenerateRequest.stream of type bool",
        ),
        (
            "/api/generate",
            {"top_logprobs": 1.5},
            "json: cannot unmarshal number 1.5 into Go struct field GenerateRequest.top_logprobs of type int",
        ),
        (
            "/v1/chat/completions",
            {"model": "tiny1", "messages": "x"},
            "json: cannot unmarshal string into Go struct field ChatCompletionRequest.messages of type "
            "[]openai.Message",
        ),
        ("/api/generate", {"keep_alive": "5"}, 'time: missing unit in duration "5"'),
        ("/api/generate", {"keep_alive": "soon"}, 'time: invalid duration "soon"'),
        ("/api/generate", {"keep_alive": "5x"}, 'time: unknown unit "x" in duration "5x"'),
        ("/api/generate", {"keep_alive": True}, "Unsupported type: 'bool'"),
        (
            "/api/chat",
            {"think": "hard"},
            'invalid think value: "hard" (must be "high", "medium", "low", "max", true, or false)',
        ),
        ("/api/generate", {"images": ["ab!d"]}, "illegal base64 data at input byte 2"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused_in_the_words_of_go(path: str, body: Any, message: str) -> None:
    status, reply = await _post(path, body)
    assert status == 400
    error = reply["error"]
    assert (error if path.startswith("/api/") else error["message"]) == message


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/api/chat", {}, 400, "model is required"),
        ("/api/embed", {"input": "x"}, 404, "model '' not found"),
        ("/api/embeddings", {"prompt": "x"}, 400, "model is required"),
        ("/api/embeddings", {"model": "no", "prompt": "x"}, 404, 'model "no" not found, try pulling it first'),
        ("/api/show", {}, 400, "model is required"),
        ("/api/push", {}, 400, "model is required"),
        ("/api/delete", {"model": "a b"}, 400, 'name "a b" is invalid'),
        ("/api/copy", {"source": "", "destination": "x"}, 400, 'source "" is invalid'),
        ("/api/pull", {"model": "../x"}, 400, "invalid model name"),
        ("/api/create", {"model": "x", "stream": False}, 400, "neither 'from' or 'files' was specified"),
        (
            "/api/create",
            {"model": "x", "files": {"x.gguf": []}},
            400,
            "json: cannot unmarshal array into Go struct field CreateRequest.files of type string",
        ),
        ("/api/pull", {"model": "nosuch", "stream": False}, 500, "pull model manifest: file does not exist"),
        ("/api/chat", {"model": "embed", "messages": HELLO}, 400, '"embed" does not support chat'),
        (
            "/api/generate",
            {"model": "tiny1", "prompt": "x", "suffix": "y"},
            400,
            "registry.ollama.ai/library/tiny1:latest does not support insert",
        ),
        (
            "/api/generate",
            {"model": "team/thinker:1b", "prompt": "x", "suffix": "y"},
            400,
            "registry.ollama.ai/team/thinker:1b does not support insert",
        ),
        (
            "/api/generate",
            {"model": "tiny1", "prompt": "x", "raw": True, "system": "y"},
            400,
            "raw mode does not support template, system, or context",
        ),
        ("/api/generate", {"model": "tiny1", "top_logprobs": -1}, 400, "top_logprobs must be between 0 and 20"),
        ("/api/embed", {"model": "embed", "input": [1]}, 400, "invalid input type"),
        ("/api/embed", {"model": "embed", "input": {"a": 1}}, 400, "invalid input type"),
        (
            "/api/embed",
            {"model": "embed", "input": "x" * 9000, "truncate": False},
            400,
            "the input length exceeds the context length",
        ),
        (
            "/api/embed",
            {"model": "tiny1", "input": "x"},
            501,
            "This server does not support embeddings. Start it with `--embeddings`",
        ),
        ("/api/generate", {"model": "tiny1", "options": {"stop": "x"}}, 500, 'option "stop" must be of type array'),
        (
            "/api/generate",
            {"model": "tiny1", "options": {"stop": [1]}},
            500,
            'option "stop" must be of an array of strings',
        ),
        (
            "/api/generate",
            {"model": "tiny1", "options": {"temperature": "hot"}},
            500,
            'option "temperature" must be of type float32',
        ),
        (
            "/api/generate",
            {"model": "tiny1", "options": {"use_mmap": 1}},
            500,
            'option "use_mmap" must be of type boolean',
        ),
    ],
)
async def test_a_request_that_cannot_be_served_is_refused_in_ollamas_words(
    path: str, body: Any, status: int, message: str
) -> None:
    method = "DELETE" if path == "/api/delete" else "POST"
    async with simulated_ollama(SETTINGS) as (_, session), session.request(method, path, json=body) as response:
        assert (response.status, await response.json()) == (status, {"error": message})


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/completions", {"model": "tiny1", "prompt": ["x"]}, "json: cannot unmarshal array"),
        ("/v1/embeddings", {"model": "embed"}, "invalid input"),
        ("/v1/embeddings", {"model": "embed", "input": []}, "invalid input"),
        ("/v1/embeddings", {"model": "embed", "input": [1, 2]}, "invalid input type"),
        ("/v1/embeddings", {"model": "embed", "input": "x", "encoding_format": "hex"}, "Invalid value for"),
        ("/v1/chat/completions", {"model": "", "messages": HELLO}, "model is required"),
        ("/v1/chat/completions", {"model": "tiny1", "messages": [{"role": "user"}]}, "invalid message content type"),
        (
            "/v1/chat/completions",
            {"model": "tiny1", "messages": HELLO, "reasoning_effort": "huge"},
            'invalid reasoning value: "huge"',
        ),
        (
            "/v1/chat/completions",
            {"model": "tiny1", "messages": HELLO, "reasoning_effort": "high"},
            '"tiny1" does not support thinking',
        ),
        (
            "/v1/chat/completions",
            {
                "model": "tiny1",
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}
                ],
            },
            "image URLs are not currently supported",
        ),
        ("/v1/responses", {"model": "tiny1", "input": 5}, "input must be a string or array"),
        ("/v1/responses", {"model": "tiny1", "input": [{"type": "x"}]}, 'input[0]: unknown input item type: "x"'),
        ("/v1/messages", {"max_tokens": 5, "messages": HELLO}, "model is required"),
        ("/v1/messages", {"model": "tiny1", "max_tokens": 5}, "messages is required"),
        (
            "/v1/messages",
            {
                "model": "tiny1",
                "max_tokens": 5,
                "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url"}}]}],
            },
            "invalid image source type: url. Only base64 images are supported.",
        ),
    ],
)
async def test_the_converters_refuse_what_they_cannot_convert(path: str, body: Any, message: str) -> None:
    status, reply = await _post(path, body)
    assert status == 400
    assert reply["error"]["type"] == "invalid_request_error"
    assert reply["error"]["message"].startswith(message)


async def test_field_names_match_in_any_case_and_only_the_first_value_is_read() -> None:
    body = '{"MODEL": "TINY1", "Prompt": "x", "stream": null, "STREAM": false, "unknown": {}} {"model": 5} trailing'
    status, reply = await _post("/api/generate", body, **{"Content-Type": "text/nonsense"})
    assert (status, reply["model"], reply["done"]) == (200, "TINY1", True)


async def test_a_body_is_taken_as_it_comes_and_unpacked_on_one_route_only() -> None:
    packed = zstd(json.dumps({"model": "tiny1", "input": "x"}).encode())
    status, answer = await _post("/v1/responses", packed, **{"Content-Encoding": "zstd"})
    assert (status, answer["object"]) == (200, "response")
    assert (await _post("/v1/responses", b"no zstd", **{"Content-Encoding": "zstd"}))[0] == 400
    status, answer = await _post("/api/embed", packed, **{"Content-Encoding": "zstd"})
    assert status == 400
    assert answer["error"].startswith("invalid character")
    status, answer = await _post("/api/show", b'{"model": "tiny1"}', **{"Content-Encoding": "gzip"})
    assert (status, "modelfile" in answer) == (200, True)


async def test_a_prompt_that_is_too_long_gives_the_runners_own_error() -> None:
    body = {"model": "tiny1", "prompt": "x" * 4000, "truncate": False}
    status, reply = await _post("/api/generate", body)
    assert status == 400
    assert json.loads(reply["error"])["error"]["type"] == "exceed_context_size_error"


async def test_empty_requests_load_and_say_so_on_native_routes_in_one_object() -> None:
    assert await _post("/api/embed", {"model": "embed"}) == (200, {"model": "embed", "embeddings": []})
    assert await _post("/api/embeddings", {"model": "embed"}) == (200, {"embedding": []})
    _, reply = await _post("/api/chat", {"model": "tiny1", "stream": True, "messages": [], "keep_alive": "0s"})
    assert (reply["done_reason"], reply["message"]) == ("unload", {"role": "assistant", "content": ""})
    _, events = await _post("/v1/completions", {"model": "tiny1", "stream": True})
    assert [data if data == "[DONE]" else data["choices"][0]["finish_reason"] for _, data in sse_events(events)] == [
        "load",
        "[DONE]",
    ]


async def test_anthropics_wish_to_think_is_dropped_where_it_cannot_be_fulfilled() -> None:
    body = {"model": "tiny1", "max_tokens": 5, "messages": HELLO, "thinking": {"type": "enabled"}}
    status, reply = await _post("/v1/messages", body)
    assert (status, [block["type"] for block in reply["content"]]) == (200, ["text"])


async def test_reasoning_is_a_field_of_its_own_on_v1() -> None:
    body = {"model": "team/thinker:1b", "messages": HELLO, "reasoning_effort": "low"}
    _, reply = await _post("/v1/chat/completions", body)
    assert reply["choices"][0]["message"]["reasoning"]
    _, stream = await _post("/v1/chat/completions", body | {"stream": True})
    deltas = [data["choices"][0]["delta"] for _, data in sse_events(stream) if data != "[DONE]"]
    assert "reasoning" in deltas[0]
    assert "reasoning" not in deltas[-1]


async def test_a_stop_word_ends_the_answer_before_it() -> None:
    settings = replace(SETTINGS, answer_text="one two three four")
    body = {"model": "tiny1", "prompt": "x", "stream": False, "options": {"stop": ["three"]}}
    async with simulated_ollama(settings) as (_, session), session.post("/api/generate", json=body) as response:
        reply = await response.json()
    assert (reply["response"], reply["done_reason"]) == ("one two ", "stop")


async def test_an_echo_gives_each_prompt_back() -> None:
    async with simulated_ollama(replace(SETTINGS, answer_style="echo")) as (server, session):
        for prompt in ("first prompt", "second <b>&amp;</b> prompt"):
            async with session.post("/api/generate", json={"model": "tiny1", "prompt": prompt}) as response:
                body = await response.read()
            assert "".join(line["response"] for line in json_lines(body)) == prompt
            assert b"<" not in body
        assert server.observations.prompts == ["first prompt", "second <b>&amp;</b> prompt"]


async def test_paths_and_methods_that_ollama_does_not_have() -> None:
    async with simulated_ollama(SETTINGS) as (_, session):
        for method, path, status in (
            ("GET", "/api/nowhere", 404),
            ("POST", "/v1/messages/count_tokens", 404),
            ("GET", "/v1/models/team/thinker", 404),
            ("GET", "/api/chat", 405),
            ("HEAD", "/api/ps", 405),
            ("PUT", "/api/tags", 405),
            ("POST", "/api/chat/", 307),
            ("GET", "/api/tags/", 301),
        ):
            async with session.request(method, path, allow_redirects=False) as response:
                assert (method, path, response.status) == (method, path, status)
                if status in (404, 405):
                    assert response.content_type == "text/plain"
        async with session.post("/api/chat/", json={"model": "tiny1", "messages": []}) as response:
            assert (await response.json())["done_reason"] == "load"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://example.com"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "vscode-webview://x"}, 200),
        ({"Host": "example.com"}, 403),
        ({"Host": "ollama.internal:11434"}, 200),
        ({"Host": "192.168.1.4"}, 200),
    ],
)
async def test_foreign_pages_and_hosts_are_turned_away(headers: dict[str, str], status: int) -> None:
    async with simulated_ollama(SETTINGS) as (_, session):
        async with session.get("/api/tags", headers=headers) as response:
            assert response.status == status
        body = {"model": "tiny1", "messages": []}
        async with session.post("/api/chat", json=body, headers=headers) as response:
            assert response.status == status
            assert status == 200 or await response.read() == b""


async def test_blobs_are_checked_against_their_digest() -> None:
    digest = "sha256:" + "0" * 64
    async with simulated_ollama(SETTINGS) as (_, session):
        async with session.post(f"/api/blobs/{digest}", data=b"x") as response:
            assert response.status == 400
            assert "digest mismatch" in (await response.json())["error"]
        async with session.head("/api/blobs/nonsense") as response:
            assert response.status == 400


async def test_no_models_at_all_is_null_for_openai() -> None:
    async with simulated_ollama(replace(SETTINGS, models=())) as (_, session):
        async with session.get("/v1/models") as response:
            assert await response.json() == {"object": "list", "data": None}
        async with session.get("/api/tags") as response:
            assert await response.json() == {"models": []}


async def test_it_runs_as_a_process_of_its_own() -> None:
    models = json.dumps([{"name": "mine", "capabilities": ["completion"], "parameters": {"num_predict": 2}}])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.simulated", "--port", "0", "--models", models, "--parallel", "3"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        async with aiohttp.ClientSession(url) as session:
            async with session.post("/api/generate", json={"model": "mine", "prompt": "x"}) as response:
                assert json_lines(await response.read())[-1]["eval_count"] == 2
            async with session.get("/simulated/state") as response:
                assert (await response.json())["loaded"] == ["mine:latest"]
    finally:
        process.terminate()
        assert await process.wait() == 0
