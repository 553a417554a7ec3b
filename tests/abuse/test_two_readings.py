"""A body that we read in one way and Ollama in another would be a way past every rule: no such body is sent."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.api.context import JOBS
from service.store.job_filters import Filter
from tests.support.access import ADMIN, bearer
from tests.support.raw_server import whole
from tests.support.running import RunningService, service_in_process
from tests.support.scripted_ollama import Script, scripted

FORBIDDEN = "forbidden"
ALLOWED = "llama3.2"
DONE = whole(b'{"model":"llama3.2","response":"x","message":{"role":"assistant","content":"x"},"done":true}')
OPTIONS = {
    "auth__required": True,
    "auth__demo_admin_key": ADMIN["Authorization"].removeprefix("Bearer "),
    "models": {ALLOWED: {"num_ctx": 4096, "max_tokens": 100, "keep_alive": 60}},
}
LONG = "9" * 307
UNREADABLE = "json: cannot unmarshal"
NATIVE = ("/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/api/show")
DROP_IN = (*NATIVE, "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages")


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    async with scripted(DONE, **OPTIONS) as script:
        yield script


async def limited_key(script: Script, **fields: Any) -> dict[str, str]:
    made = {"name": "limited", "models": [ALLOWED], "max_priority": "normal", **fields}
    status, key = await script.service.call("POST", "/api/keys", made, headers=ADMIN)
    assert status == 201, key
    return bearer(key["key"])


async def posted(service: RunningService, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    async with service.session.post(path, data=body, headers=headers) as response:
        text = await response.text()
        return response.status, json.loads(text) if text.startswith("{") else text


def message_in(answer: Any) -> str:
    error = answer["error"]
    return str(error["message"] if isinstance(error, dict) else error)


TWICE = [
    (b'{"model":"forbidden","Model":null,"prompt":"x"}', "'model' and 'Model'"),
    (b'{"model":"llama3.2","MODEL":"forbidden","prompt":"x"}', "'model' and 'MODEL'"),
    (b'{"model":"llama3.2","model":"forbidden","prompt":"x"}', "'model' occurs twice"),
    (b'{"mode\\u006c":"llama3.2","model":"forbidden","prompt":"x"}', "'model' occurs twice"),
    (b'{"model":"llama3.2","keep_alive":0,"prompt":"x","Prompt":null}', "'prompt' and 'Prompt'"),
    ('{"model":"llama3.2","keep_alive":0,"\u212aeep_alive":null,"messages":[]}'.encode(), "keep_alive"),
    (b'{"model":"llama3.2","options":{"num_ctx":1},"Options":{}}', "'options' and 'Options'"),
    (b'{"model":"llama3.2","options":{"num_ctx":1},"option\\u017f":{}}', "option"),
    (b'{"model":"llama3.2","options":{"num_ctx":1,"num_ctx":2}}', "options: 'num_ctx' occurs twice"),
    (b'{"model":"llama3.2","options":{"num_ctx":1,"Num_Ctx":2}}', "options: 'num_ctx' and 'Num_Ctx'"),
    (b'{"model":"llama3.2","messages":[{"role":"user","content":"x","Content":"y"}]}', "messages[0]: 'content'"),
    (b'{"model":"llama3.2","messages":[{"role":"user"},{"x":1,"x":2}]}', "messages[1]: 'x' occurs twice"),
    (b'{"model":"llama3.2","input":[{"role":"user","content":"x","Content":"y"}]}', "input[0]: 'content'"),
    (b'{"model":"llama3.2","unknown":1,"Unknown":2}', "'unknown' and 'Unknown'"),
    ('{"model":"llama3.2","Größe":1,"GRÖßE":2}'.encode(), "Größe"),
    (b'{"model":"llama3.2","\\ud800":1,"\\ud801":2}', "occurs twice"),
]


async def test_a_name_that_occurs_twice_is_refused_before_anything_is_sent(script: Script) -> None:
    key = await limited_key(script)
    for path, (body, said) in itertools.product(DROP_IN, TWICE):
        status, answer = await posted(script.service, path, body, key)
        assert status == 400, (body, answer)
        assert said in message_in(answer), (body, answer)
    assert script.given == []
    assert (await script.service.app[JOBS].views.page(Filter(), 5, 0)).total == 0


async def test_what_is_more_than_one_json_value_is_refused(script: Script) -> None:
    body = b'{"model":"forbidden","prompt":"x","input":"x","messages":[]}'
    key = await limited_key(script)
    for path, rest in itertools.product(DROP_IN, (b" x", b"{}", b"\0", b"null", b"]")):
        status, answer = await posted(script.service, path, body + rest, key)
        assert status == 400
        assert "after top-level value" in message_in(answer)
    assert script.given == []


async def test_numbers_that_no_go_integer_holds_are_refused(script: Script) -> None:
    key = await limited_key(script)
    for path, options in itertools.product(
        NATIVE,
        (
            f'{{"num_ctx":{LONG},"num_batch":{LONG},"num_gpu":{LONG},"num_thread":{LONG}}}',
            f'{{"num_ctx":{2**63}}}',
            f'{{"num_ctx":-{2**63 + 1}}}',
            f'{{"num_predict":{"9" * 5000}}}',
        ),
    ):
        status, answer = await posted(
            script.service, path, f'{{"model":"{ALLOWED}","options":{options}}}'.encode(), key
        )
        assert status == 400
        assert "63 bits" in message_in(answer)
    for path, field in itertools.product(NATIVE, ("keep_alive", "max_tokens", "top_logprobs", "dimensions", "seed")):
        status, answer = await posted(script.service, path, f'{{"model":"{ALLOWED}","{field}":{LONG}}}'.encode(), key)
        assert (status, field in message_in(answer)) == (400, True)
    assert script.given == []


async def test_whatever_names_a_model_is_judged_by_that_model(script: Script) -> None:
    key = await limited_key(script)
    for path, body in itertools.product(
        DROP_IN,
        (
            b'{"model":"forbidden","prompt":"x","messages":[],"stream":"yes"}',
            b'{"model":"forbidden","options":[],"prompt":"x"}',
            b'{"model":"forbidden","options":"none","stream":5,"input":{}}',
            b'{"MODEL":"forbidden","prompt":"x"}',
            b'{"mode\\u006C":"forbidden","keep_alive":0}',
            b'{"model":"forbidden:latest","name":"llama3.2"}',
        ),
    ):
        status, answer = await posted(script.service, path, body, key)
        assert (status, "may not use" in message_in(answer)) == (403, True)
    assert script.given == []


ANOTHER_SPELLING = (
    "http://registry.ollama.ai/library/forbidden",
    "x://registry.ollama.ai/library/FORBIDDEN:latest",
    "forbidden:local",
    "forbidden:latest:LOCAL ",
    " forbidden",
)
NO_NAME = (
    "é://registry.ollama.ai/library/forbidden",
    "A" * 700 + "://registry.ollama.ai/library/forbidden",
    "\0://registry.ollama.ai/library/forbidden",
    "\ud800://registry.ollama.ai/library/forbidden",
    "\u00a0forbidden",
    "forbidden\u3000",
    "forbidden:\u2003local",
)


async def test_a_model_is_the_same_in_every_spelling_that_ollama_reads(script: Script) -> None:
    """Its types/model drops what stands before ``://`` of a host, and its internal/modelref spaces and ``:local``."""
    key = await limited_key(script)
    for path, name in itertools.product(DROP_IN, ANOTHER_SPELLING):
        status, answer = await posted(script.service, path, json.dumps({"model": name, "prompt": "x"}).encode(), key)
        assert (status, "may not use" in message_in(answer)) == (403, True), name
    for path, name in itertools.product(DROP_IN, NO_NAME):
        status, answer = await posted(script.service, path, json.dumps({"model": name, "prompt": "x"}).encode(), key)
        assert (status, "not found" in message_in(answer)) == (404, True), name
        assert len(message_in(answer)) < 700
    assert script.given == []


async def test_ceilings_hold_in_every_spelling_of_the_model_and_of_a_number(script: Script) -> None:
    for name in ("http://registry.ollama.ai/library/llama3.2", "llama3.2:local", "LLAMA3.2"):
        for tokens in (0.5, 1e-300, -0.5, 0, -1, 1e9):
            body: dict[str, Any] = {"model": name, "prompt": "x", "stream": False}
            body |= {"options": {"num_ctx": 9_999.5, "num_predict": tokens}, "keep_alive": -1}
            assert (await posted(script.service, "/api/generate", json.dumps(body).encode(), ADMIN))[0] == 200
            sent = json.loads(script.bodies[-1])
            assert sent["options"] == {"num_ctx": 4096, "num_predict": 100}
            assert sent["keep_alive"] == 60


async def test_what_would_be_written_as_no_json_is_refused(script: Script) -> None:
    body = b'{"model":"llama3.2","prompt":"x","x":1e5000}'
    status, answer = await posted(script.service, "/api/generate", body, ADMIN)
    assert (status, "too large" in message_in(answer)) == (400, True)
    assert (await posted(script.service, "/api/generate", body.replace(b"llama3.2", b"other"), ADMIN))[0] == 200
    assert script.bodies[-1] == body.replace(b"llama3.2", b"other")


async def test_what_cannot_be_described_takes_its_turn_and_counts(script: Script) -> None:
    key = await limited_key(script, rate_limit=2)
    for body in (b'{"model":"llama3.2","prompt":"x","stream":"yes"}', b'{"model":"llama3.2","options":[]}'):
        async with script.service.session.post("/api/generate", data=body, headers=key) as response:
            assert "X-Job-Id" in response.headers
    status, _ = await posted(script.service, "/api/generate", b'{"prompt":"x"}', key)
    assert (status, len(script.given)) == (429, 2)


async def test_a_call_that_names_no_model_is_worded_by_ollama_after_admission(script: Script) -> None:
    key = await limited_key(script)
    for body in (
        b'{"prompt":"x"}',
        b'{"model":5}',
        b"[1]",
        b"null",
    ):
        assert (await posted(script.service, "/api/generate", body, key))[0] == 200
        assert script.bodies[-1] == body
    assert (await posted(script.service, "/api/generate", b'{"prompt":"x"}', bearer("nobody")))[0] == 401


async def test_an_unchanged_body_goes_upstream_as_its_own_bytes(script: Script) -> None:
    for body in (
        b'{ "Model" : "other",\n "prompt":"\\u00e4\\ud83d\\ude00", "own": [1.50, 1E2, {"a":1,"a":2}], "stream":false }',
        b'{"model":"other","options":{"Num_ctx":9999999,"seed":1.0},"stream":false,"prompt":"x"}',
    ):
        assert (await posted(script.service, "/api/generate", body, ADMIN))[0] == 200
        assert script.bodies[-1] == body


async def test_a_changed_body_is_written_from_what_was_judged_with_its_unknown_fields(script: Script) -> None:
    options = b'{"num_ctx":9999,"Num_ctx2":1,"own":{"b":[]}}'
    body = b'{"MODEL":"llama3.2","prompt":"x","OPTIONS":%s,"Own":{"C":1},"stream":false}' % options
    assert (await posted(script.service, "/api/generate", body, ADMIN))[0] == 200
    assert json.loads(script.bodies[-1]) == {
        "model": "llama3.2",
        "prompt": "x",
        "options": {"num_ctx": 4096, "num_predict": 100, "Num_ctx2": 1, "own": {"b": []}},
        "own": {"C": 1},
        "stream": False,
    }


async def test_an_unload_that_is_called_by_another_name_is_sent_as_it_was_judged(script: Script) -> None:
    body = b'{"model_name":"llama3.2","keep_alive":0}'
    assert (await posted(script.service, "/api/chat", body, ADMIN))[0] == 200
    assert json.loads(script.bodies[-1])["model"] == "llama3.2"


@pytest.mark.parametrize(("path", "fields"), [("/api/v1/prompt", {"prompt": "x"}), ("/generate", {"prompt": "x"})])
async def test_corrals_own_bodies_are_read_once_too(script: Script, path: str, fields: dict[str, Any]) -> None:
    own = json.dumps({**fields, "model": ALLOWED})[:-1]
    for more, said in (
        (',"model":"forbidden"}', "model: occurs twice"),
        (',"options":{"num_ctx":1,"num_ctx":2}}', "options: 'num_ctx' occurs twice"),
        (',"options":{"num_ctx":1,"Num_ctx":2}}', "options: 'num_ctx' and 'Num_ctx'"),
        ("} x", "not JSON"),
    ):
        status, answer = await posted(script.service, path, (own + more).encode(), ADMIN)
        assert status == 400
        assert said in message_in(answer)
    assert script.given == []


async def test_a_message_of_a_prompt_is_ollamas_own(script: Script) -> None:
    turns = [
        {"role": "user", "name": "Ann", "content": None, "own": {"a": None}},
        {"role": "tool", "tool_name": "t"},
        {"role": "user", "content": "x"},
    ]
    status, answer = await script.service.call(
        "POST", "/api/v1/prompt", {"messages": turns, "model": ALLOWED}, headers=ADMIN
    )
    assert status == 202, answer
    await script.service.session.get(f"/api/v1/prompt/{answer['id']}/status?wait=20&status=queued", headers=ADMIN)
    sent = json.loads(script.bodies[-1])["messages"]
    assert sent == [{"role": "user", "name": "Ann", "own": {"a": None}}, *turns[1:]]
    doubled = b'{"messages":[{"role":"user","content":"x","Content":"y"}]}'
    status, answer = await posted(script.service, "/api/v1/prompt", doubled, ADMIN)
    assert (status, "messages[0]: 'content' and 'Content'" in message_in(answer)) == (400, True)


async def test_without_a_backend_ollamas_words_are_ours() -> None:
    async with service_in_process({"backends": [{"name": "away", "url": "http://127.0.0.1:9"}]}) as service:
        for path, body, status, said in (
            ("/api/generate", b"{}", 404, "model '' not found"),
            ("/api/embed", b'{"model":""}', 404, "model '' not found"),
            ("/api/chat", b"{}", 400, "model is required"),
            ("/v1/chat/completions", b'{"model":null}', 400, "model is required"),
            ("/v1/completions", b"{}", 404, "model '' not found"),
            ("/v1/messages", b"{}", 400, "model is required"),
            (
                "/api/chat",
                b'{"model":5}',
                400,
                "json: cannot unmarshal number into Go struct field ChatRequest.model of type string",
            ),
            ("/v1/embeddings", b"[]", 400, f"{UNREADABLE} array into Go value of type openai.EmbedRequest"),
            ("/api/generate", '{"model":"größer"}'.encode(), 404, "model 'größer' not found"),
            ("/v1/embeddings", b'{"model":"a\\u0000"}', 404, 'model "a\\u0000" not found, try pulling it first'),
            ("/api/generate", b"", 400, "missing request body"),
            ("/v1/completions", b" \n", 400, "EOF"),
        ):
            found, answer = await posted(service, path, body, {})
            assert (found, message_in(answer)) == (status, said)
