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
GENERATE = "/api/generate"
MOVED = ("temperature", "top_p", "top_k", "seed", "stop", "num_ctx", "num_predict")
"""Options that other APIs have beside the messages; ``max_tokens`` is the last of them, too."""

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
    "num_predict": NUMBERS | JSON,
    "num_ctx": NUMBERS | JSON,
    "top_k": NUMBERS,
    "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=2) | JSON,
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
WHOLE = st.booleans()


def described(endpoint: str, body: dict[str, Any], is_whole: bool, limits: ModelLimits) -> CallDetails | None:
    # Only a chat is made whole, and only where its body does not say what it wants.
    is_whole = is_whole and endpoint == CHAT and body.get("stream") is None
    return DIALECTS[endpoint](ENDPOINTS[endpoint], body, is_whole, limits)


def sent_for(
    endpoint: str, body: dict[str, Any], is_whole: bool = False, limits: ModelLimits = NO_LIMITS
) -> dict[str, Any]:
    """The body that Ollama gets; the caller's own stays as it is."""
    own = copy.deepcopy(body)
    details = described(endpoint, body, is_whole, limits)
    assert body == own
    return body if details is None or details.body is None else details.body


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


def as_option(name: str, value: Any) -> Any:
    """The value as Ollama would take it for the option; None for one of another type."""
    if name == "stop":
        value = [value] if isinstance(value, str) and value else value
        return value if isinstance(value, list) and all(isinstance(word, str) for word in value) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


@given(endpoint=st.sampled_from(sorted(DIALECTS.keys() - {CHAT, GENERATE})), body=BODIES)
def test_without_limits_a_body_is_sent_as_it_came(endpoint: str, body: dict[str, Any]) -> None:
    assert sent_for(endpoint, body) is body


@given(endpoint=st.sampled_from([CHAT, GENERATE]), body=BODIES)
def test_so_is_one_in_which_nothing_stands_beside_the_options(endpoint: str, body: dict[str, Any]) -> None:
    plain = without(body, *MOVED, "max_tokens", "model_name")
    assert sent_for(endpoint, plain) is plain


@given(endpoint=st.sampled_from([CHAT, GENERATE]), body=BODIES, is_whole=WHOLE)
def test_every_field_is_kept_or_put_where_ollama_looks_for_it(
    endpoint: str, body: dict[str, Any], is_whole: bool
) -> None:
    sent = sent_for(endpoint, body, is_whole)
    if sent is body:
        return
    put_elsewhere: tuple[str, ...] = ("options", *MOVED, "max_tokens")
    if endpoint == CHAT:
        put_elsewhere = (*put_elsewhere, "model", "model_name", "stream")
        assert sent["model"] == (body.get("model_name") if body.get("model") is None else body["model"])
        says_nothing = body.get("stream") is None and is_whole
        assert sent.get("stream") == (False if says_nothing else body.get("stream"))
    assert without(sent, *put_elsewhere) == without(body, *put_elsewhere)
    if not isinstance(body.get("options"), dict | None):
        assert sent["options"] == body["options"]
        assert all(sent.get(name) == body.get(name) for name in (*MOVED, "max_tokens"))
        return
    given = body.get("options") or {}
    options = sent.get("options") or {}
    assert without(options, *MOVED) == without(given, *MOVED)
    for name in MOVED:
        values = [as_option(name, body.get(name))]
        if name == "num_predict":
            values.append(as_option(name, body.get("max_tokens")))
        asked = next((value for value in values if value is not None), None)
        assert options.get(name) == (asked if given.get(name) is None else given[name])
    for name in (*MOVED, "max_tokens"):
        is_moved = as_option(name, body.get(name)) is not None
        assert sent.get(name) == (None if is_moved else body.get(name))


@pytest.mark.parametrize("endpoint", [CHAT, GENERATE])
@pytest.mark.parametrize(
    ("fields", "options", "left"),
    [
        ({"num_predict": 5, "max_tokens": 9}, {"num_predict": 5}, {}),
        ({"num_predict": "5", "max_tokens": 9}, {"num_predict": 9}, {"num_predict": "5"}),
        ({"num_predict": 5, "max_tokens": 9, "options": {"num_predict": 1}}, {"num_predict": 1}, {}),
        ({"temperature": 0, "options": {"Temperature": 1}}, {"Temperature": 1}, {}),
        ({"max_tokens": 9, "top_k": 1, "options": {"num_predict": None}}, {"num_predict": 9, "top_k": 1}, {}),
        ({"top_k": 1, "options": {"TOP_K": None, "seed": None}}, {"top_k": 1, "seed": None}, {}),
        ({"stop": "END"}, {"stop": ["END"]}, {}),
        ({"stop": ["a", "b"], "top_k": 3, "options": None}, {"stop": ["a", "b"], "top_k": 3}, {}),
        ({"stop": "", "seed": True, "top_p": "1"}, None, {"stop": "", "seed": True, "top_p": "1"}),
        ({"stop": ["a", 1], "top_p": 0.5}, {"top_p": 0.5}, {"stop": ["a", 1]}),
        ({"seed": 1, "options": [2]}, [2], {"seed": 1}),
    ],
)
def test_what_stands_beside_the_options_is_put_among_them(
    endpoint: str, fields: dict[str, Any], options: Any, left: dict[str, Any]
) -> None:
    sent = sent_for(endpoint, {"model": "free", **fields})
    assert sent == {"model": "free", **left} | ({} if options is None else {"options": options})


def test_a_context_beside_the_options_makes_another_runner_and_has_the_models_ceiling() -> None:
    body = {"model": "limited", "num_ctx": 9000, "prompt": "x"}
    details = described(GENERATE, body, False, LIMITS)
    assert details is not None
    assert details.body is not None
    assert details.body["options"]["num_ctx"] == 4096
    assert details.runner == runner_key("limited", {"num_ctx": 4096})


@given(endpoint=PATHS, body=BODIES)
def test_limits_change_what_they_limit_and_nothing_else(endpoint: str, body: dict[str, Any]) -> None:
    free = sent_for(endpoint, body)
    sent = sent_for(endpoint, body, limits=LIMITS)
    limited = ("keep_alive", "options") if endpoint.startswith("/api/") else ("max_tokens", "max_output_tokens")
    assert without(sent, *limited) == without(free, *limited)
    assert sent.keys() >= free.keys()
    if endpoint.startswith("/api/") and isinstance(sent.get("options"), dict):
        in_options = ("num_ctx", "num_predict")
        assert without(sent["options"], *in_options) == without(free.get("options") or {}, *in_options)


@given(endpoint=PATHS, body=BODIES, is_whole=WHOLE, limits=st.sampled_from([NO_LIMITS, LIMITS]))
def test_the_runner_is_that_of_the_body_that_is_sent(
    endpoint: str, body: dict[str, Any], is_whole: bool, limits: ModelLimits
) -> None:
    details = described(endpoint, body, is_whole, limits)
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
    assert (described(endpoint, body, False, NO_LIMITS) is not None) == is_named


@pytest.mark.parametrize("endpoint", DIALECTS)
@pytest.mark.parametrize("keep_alive", [10**400, -(10**400), 1e300, "9" * 400 + "h", float("inf")])
def test_a_number_that_is_too_large_is_left_to_ollama(endpoint: str, keep_alive: Any) -> None:
    body = {"model": "limited", "keep_alive": keep_alive}
    details = described(endpoint, body, False, LIMITS)
    assert details is not None
    assert not details.is_unload
