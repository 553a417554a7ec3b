"""A prompt becomes a request to Ollama that has everything in it that the caller gave."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.api.prompts.schema import PromptRequest
from service.api.prompts.translation import to_job
from service.api.requests import translation as requests
from service.api.requests.schema import GenerateRequest
from service.clock import Clock
from service.config import ModelConfig, QueueConfig
from service.job import NewJob, runner_key
from service.model_limits import ModelLimits

NO_LIMITS = ModelLimits({})
LIMITS = ModelLimits({"limited": ModelConfig(default_num_ctx=512, keep_alive=60, max_tokens=100)})
CLOCK = Clock()

WORDS = st.text(min_size=1, max_size=9).filter(lambda text: not text.isspace())
OPTIONS = st.dictionaries(
    st.sampled_from(["num_ctx", "temperature", "stop", "num_gpu"]),
    st.integers(1, 9000) | st.lists(st.text(max_size=3), max_size=2),
    max_size=3,
)
IMAGES = st.lists(st.sampled_from(["YQ==", "YWI="]), min_size=1, max_size=2)
TOOLS = st.lists(st.just({"type": "function", "function": {"name": "weather"}}), min_size=1, max_size=2)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]), "content": st.text(max_size=9)},
        optional={"images": IMAGES, "thinking": WORDS, "tool_calls": TOOLS, "tool_name": WORDS, "tool_call_id": WORDS},
    ),
    min_size=1,
    max_size=3,
)
SHARED: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["limited", "free"]),
    "system": WORDS,
    "options": OPTIONS,
    "format": st.sampled_from(["json", {"type": "object"}]),
    "think": st.sampled_from([True, False, "high"]),
    "keep_alive": st.sampled_from(["5m", 0, -1, 30]),
}
GENERATED = st.fixed_dictionaries({"prompt": WORDS}, optional={**SHARED, "images": IMAGES})
CHATS = st.fixed_dictionaries({"messages": TURNS}, optional={**SHARED, "tools": TOOLS})


def job_of(given_fields: dict[str, Any], limits: ModelLimits) -> NewJob:
    queue = QueueConfig(default_model="default")
    return to_job(PromptRequest.model_validate(given_fields), queue, limits, CLOCK, "me", None)


@given(fields=GENERATED)
def test_a_prompt_is_sent_with_every_field_of_it(fields: dict[str, Any]) -> None:
    job = job_of(fields, NO_LIMITS)
    assert (job.endpoint, job.prompt) == ("/api/generate", fields["prompt"])
    assert json.loads(job.request) == {"model": "default", "stream": True, **fields}


@given(fields=CHATS)
def test_a_chat_is_sent_with_every_field_of_it_and_the_system_prompt_first(fields: dict[str, Any]) -> None:
    job = job_of(fields, NO_LIMITS)
    sent = json.loads(job.request)
    system = [{"role": "system", "content": fields["system"]}] if "system" in fields else []
    assert job.endpoint == "/api/chat"
    assert sent.pop("messages") == system + fields["messages"]
    others = {name: value for name, value in fields.items() if name not in ("messages", "system")}
    assert sent == {"model": "default", "stream": True, **others}


@given(fields=GENERATED | CHATS)
def test_limits_change_options_and_keep_alive_only_and_decide_the_runner(fields: dict[str, Any]) -> None:
    job = job_of(fields, LIMITS)
    free, sent = json.loads(job_of(fields, NO_LIMITS).request), json.loads(job.request)
    for body in (free, sent):
        body.pop("keep_alive", None)
    options, given_options = sent.pop("options", {}), free.pop("options", {})
    assert sent == free
    assert {**options, **given_options, "num_predict": 0} == {**options, "num_predict": 0}
    assert job.runner == runner_key(job.model, options)


@given(
    fields=st.fixed_dictionaries(
        {"prompt": WORDS}, optional={name: SHARED[name] for name in ("model", "system", "options")}
    )
)
def test_a_request_with_an_integer_id_is_sent_with_every_field_of_it(fields: dict[str, Any]) -> None:
    job = requests.to_job(GenerateRequest.model_validate(fields), "default", NO_LIMITS, "me", None)
    assert (job.endpoint, job.prompt) == ("/api/generate", fields["prompt"])
    assert json.loads(job.request) == {"model": "default", "stream": True, **fields}
