"""What the queue does to a caller's body before Ollama gets it: next to nothing, and no field is lost on the way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.anthropic import translation as anthropic
from service.api.dropin.details import CallDetails
from service.api.dropin.dialect import Describe
from service.api.dropin.reading import is_name
from service.api.ollama import translation as ollama
from service.api.openai import translation as openai
from service.config import ModelConfig
from service.endpoints import ENDPOINTS
from service.job import runner_key
from service.model_limits import ModelLimits

DIALECTS: dict[str, Describe] = {
    "/api/generate": ollama.describe,
    "/api/chat": ollama.describe,
    "/api/embed": ollama.describe,
    "/api/embeddings": ollama.describe,
    "/v1/chat/completions": openai.describe,
    "/v1/completions": openai.describe,
    "/v1/embeddings": openai.describe,
    "/v1/responses": openai.describe,
    "/v1/images/generations": openai.describe,
    "/v1/messages": anthropic.describe,
}
NO_LIMITS = ModelLimits({})
LIMITS = ModelLimits(
    {
        "limited": ModelConfig(
            num_ctx=4096, default_num_ctx=2048, keep_alive=60, default_keep_alive=30, max_tokens=100
        ),
        "defaults": ModelConfig(default_num_ctx=512, default_keep_alive=-1, default_max_tokens=7),
    }
)
CHAT = "/api/chat"
MOVED = {"temperature": "temperature", "max_tokens": "num_predict"}
"""Fields of other APIs' chats, and the options that Ollama has for them."""
NDJSON = "application/x-ndjson"

NUMBERS = st.integers(-3, 9000) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=4)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
OPTIONS = st.dictionaries(
    st.sampled_from(["num_ctx", "num_predict", "temperature", "num_gpu", "stop", "own"]), NUMBERS | JSON, max_size=4
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "system"]),
            "content": st.text(max_size=5) | JSON,
            "own": JSON,
        },
    ),
    max_size=3,
)
KNOWN: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["limited", "LIMITED:latest", "defaults", "free"]) | JSON,
    "model_name": st.sampled_from(["limited", "free"]) | JSON,
    "stream": st.sampled_from([True, False, None, "yes"]),
    "options": OPTIONS | JSON,
    "shift": st.booleans() | JSON,
    "keep_alive": NUMBERS | st.sampled_from(["5m", "0s", "-1s", 0, 10**400]) | JSON,
    "max_tokens": NUMBERS | JSON,
    "max_output_tokens": NUMBERS | JSON,
    "temperature": NUMBERS | JSON,
    "messages": TURNS | JSON,
    "prompt": st.text(max_size=5) | JSON,
    "input": st.text(max_size=5) | TURNS | JSON,
}
BODIES = st.builds(
    lambda known, others: others | known,
    st.fixed_dictionaries({}, optional=KNOWN),
    st.dictionaries(st.text(min_size=1, max_size=5).map(str.lower), JSON, max_size=3),
)
PATHS = st.sampled_from(sorted(DIALECTS))
ACCEPT = st.sampled_from(["", "*/*", NDJSON])


def described(endpoint: str, body: dict[str, Any], accept: str, limits: ModelLimits) -> CallDetails | None:
    return DIALECTS[endpoint](ENDPOINTS[endpoint], body, accept, limits)


def sent_for(endpoint: str, body: dict[str, Any], accept: str = "", limits: ModelLimits = NO_LIMITS) -> dict[str, Any]:
    """The body that Ollama gets; the caller's own stays as it is."""
    own = copy.deepcopy(body)
    details = described(endpoint, body, accept, limits)
    assert body == own
    return body if details is None or details.body is None else details.body


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@given(endpoint=st.sampled_from(sorted(DIALECTS.keys() - {CHAT})), body=BODIES, accept=ACCEPT)
def test_without_limits_a_body_is_sent_as_it_came(endpoint: str, body: dict[str, Any], accept: str) -> None:
    assert sent_for(endpoint, body, accept) is body


@given(body=BODIES, accept=ACCEPT)
def test_of_a_chat_every_field_is_kept_or_put_where_ollama_looks_for_it(body: dict[str, Any], accept: str) -> None:
    sent = sent_for(CHAT, body, accept)
    if sent is body:
        return
    put_elsewhere = ("model", "model_name", "stream", "options", *MOVED)
    assert without(sent, *put_elsewhere) == without(body, *put_elsewhere)
    assert sent["model"] == (body.get("model_name") if body.get("model") is None else body["model"])
    asked = None if accept == NDJSON else False
    assert sent.get("stream") == (asked if body.get("stream") is None else body["stream"])
    if not isinstance(body.get("options"), dict | None):
        assert without(sent, "model", "model_name", "stream") == without(body, "model", "model_name", "stream")
        return
    given = body.get("options") or {}
    options = sent.get("options") or {}
    assert without(options, *MOVED.values()) == without(given, *MOVED.values())
    for theirs, ours in MOVED.items():
        value = body.get(theirs)
        if is_number(value):
            assert theirs not in sent
            assert options[ours] == given.get(ours, value)
        else:
            assert (sent.get(theirs), options.get(ours)) == (value, given.get(ours))


@given(endpoint=PATHS, body=BODIES)
def test_limits_change_what_they_limit_and_nothing_else(endpoint: str, body: dict[str, Any]) -> None:
    free = sent_for(endpoint, body, NDJSON)
    sent = sent_for(endpoint, body, NDJSON, LIMITS)
    limited = ("keep_alive", "options") if endpoint.startswith("/api/") else ("max_tokens", "max_output_tokens")
    assert without(sent, *limited) == without(free, *limited)
    assert sent.keys() >= free.keys()
    if endpoint.startswith("/api/") and isinstance(sent.get("options"), dict):
        in_options = ("num_ctx", "num_predict")
        assert without(sent["options"], *in_options) == without(free.get("options") or {}, *in_options)


@given(endpoint=PATHS, body=BODIES, accept=ACCEPT, limits=st.sampled_from([NO_LIMITS, LIMITS]))
def test_the_runner_is_that_of_the_body_that_is_sent(
    endpoint: str, body: dict[str, Any], accept: str, limits: ModelLimits
) -> None:
    details = described(endpoint, body, accept, limits)
    if details is None:
        return
    sent = body if details.body is None else details.body
    is_native = endpoint.startswith("/api/")
    assert details.model == sent["model"]
    assert details.runner == (
        runner_key(sent["model"], sent.get("options"), sent.get("shift")) if is_native else runner_key(sent["model"])
    )


@given(endpoint=PATHS, body=BODIES)
def test_whatever_names_a_model_takes_its_turn(endpoint: str, body: dict[str, Any]) -> None:
    model = body.get("model")
    if endpoint == CHAT and model is None:
        model = body.get("model_name")
    is_named = isinstance(model, str) and is_name(model)
    assert (described(endpoint, body, "", NO_LIMITS) is not None) == is_named


@pytest.mark.parametrize("endpoint", DIALECTS)
@pytest.mark.parametrize("keep_alive", [10**400, -(10**400), 1e300, "9" * 400 + "h", float("inf")])
def test_a_number_that_is_too_large_is_left_to_ollama(endpoint: str, keep_alive: Any) -> None:
    body = {"model": "limited", "keep_alive": keep_alive}
    details = described(endpoint, body, "", LIMITS)
    assert details is not None
    assert not details.is_unload
