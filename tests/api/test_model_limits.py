"""The operator's ceilings and defaults in the bodies that go to the backend."""

from __future__ import annotations

from typing import Any

import pytest

from service.config import ModelConfig
from service.job import runner_key
from service.model_limits import ModelLimits, uncarried_limits, unreachable_limits

LIMITS = ModelLimits(
    {
        "Capped": ModelConfig(num_ctx=8192, keep_alive=3600, max_tokens=100),
        "given:1b": ModelConfig(default_num_ctx=4096, default_keep_alive=300, default_max_tokens=50),
        "pinned": ModelConfig(num_ctx=4096, default_num_ctx=4096),
        "narrow": ModelConfig(allow_options=("num_ctx",), default_num_ctx=4096),
        "closed": ModelConfig(allow_options=(), default_num_ctx=4096),
        "for-ever": ModelConfig(keep_alive=-1, default_keep_alive=0.5),
    }
)
UNLIMITED = {"num_predict": 100}


def body_of(endpoint: str, model: str, **fields: Any) -> dict[str, Any]:
    changed = LIMITS.applied(endpoint, model, {"model": model, **fields})
    assert changed.pop("model") == model
    return changed


@pytest.mark.parametrize("name", ["capped", "CAPPED", "Capped:latest", "library/capped"])
def test_names_are_matched_as_ollama_matches_them(name: str) -> None:
    assert body_of("/api/generate", name, options={"num_ctx": 99_999})["options"]["num_ctx"] == 8192


def test_a_model_without_limits_is_left_alone() -> None:
    body = {"model": "other", "options": {"num_predict": 0}}
    assert LIMITS.applied("/api/generate", "other", body) is body


@pytest.mark.parametrize("asked", [0, -1, -2, 101, 10_000_000])
def test_an_answer_without_end_or_above_the_ceiling_is_cut_to_it(asked: int) -> None:
    assert body_of("/api/chat", "capped", options={"num_predict": asked}) == {"options": UNLIMITED}


def test_an_answer_of_which_nothing_is_said_is_bounded_too() -> None:
    assert body_of("/api/chat", "capped", options={"seed": 1}) == {"options": {"seed": 1, **UNLIMITED}}
    assert body_of("/api/chat", "capped") == {"options": UNLIMITED}
    assert body_of("/api/chat", "given:1b")["options"]["num_predict"] == 50


def test_what_is_within_the_ceilings_stays() -> None:
    fields = {"options": {"num_ctx": 2048, "num_predict": 7, "top_k": 3}, "keep_alive": "10m"}
    assert body_of("/api/generate", "capped", **fields) == fields


@pytest.mark.parametrize("asked", [-1, "-1s", "2h", 3601])
def test_a_model_is_not_kept_longer_than_the_ceiling(asked: Any) -> None:
    assert body_of("/api/embed", "capped", keep_alive=asked) == {"keep_alive": 3600}


def test_an_unload_stays_one() -> None:
    assert body_of("/api/generate", "capped", keep_alive=0)["keep_alive"] == 0
    assert body_of("/api/generate", "given:1b", keep_alive=0)["keep_alive"] == 0


def test_defaults_are_given_where_nothing_was_asked() -> None:
    assert body_of("/api/generate", "given:1b") == {
        "keep_alive": 300,
        "options": {"num_ctx": 4096, "num_predict": 50},
    }
    asked = {"keep_alive": 1, "options": {"num_ctx": 1024, "num_predict": 99_999}}
    assert body_of("/api/generate", "given:1b", **asked) == asked


def test_an_embedding_has_no_tokens_to_bound() -> None:
    assert body_of("/api/embed", "given:1b") == {"keep_alive": 300, "options": {"num_ctx": 4096}}
    assert body_of("/v1/embeddings", "capped", input="a") == {"input": "a"}


@pytest.mark.parametrize("asked", [{}, {"num_ctx": 2048}, {"num_ctx": 99_999}, {"num_ctx": None}])
def test_one_value_for_both_is_the_only_context_length_and_the_only_runner(asked: dict[str, Any]) -> None:
    body = body_of("/api/chat", "pinned", options=asked)
    assert body == {"options": {"num_ctx": 4096}}
    assert runner_key("pinned", body["options"]) == runner_key("pinned", {"num_ctx": 4096})


RELOADS = {
    "num_batch": 64, "num_gpu": 3, "main_gpu": 0, "use_mmap": False, "num_thread": 2, "draft_num_predict": 1,
}  # fmt: skip


def test_options_that_load_a_model_again_are_dropped_where_they_are_not_allowed_and_others_pass() -> None:
    asked = {"num_ctx": 2048, "seed": 1, "num_keep": 5, **RELOADS}
    left = body_of("/api/chat", "narrow", options=asked, shift=False, think=True)
    assert left == {"options": {"num_ctx": 2048, "seed": 1, "num_keep": 5}, "think": True}
    left = body_of("/api/generate", "closed", options={**asked, "use_mmap": "no"}, shift=True)
    assert left == {"options": {"num_ctx": 4096, "seed": 1, "num_keep": 5}}
    assert runner_key("closed", left["options"]) == runner_key("closed", {"num_ctx": 4096})


def test_where_nothing_is_said_of_options_all_of_them_pass() -> None:
    asked: dict[str, Any] = {"options": {"num_ctx": 2048, **RELOADS}, "shift": False}
    assert body_of("/api/chat", "given:1b", **asked)["options"].items() >= asked["options"].items()
    assert body_of("/api/chat", "given:1b", **asked)["shift"] is False


def test_a_body_without_anything_to_drop_is_left_alone() -> None:
    body = {"model": "narrow", "options": {"num_ctx": 2048}, "keep_alive": 5}
    assert LIMITS.applied("/api/generate", "narrow", body) is body
    assert body_of("/v1/chat/completions", "closed", options={"num_gpu": 1}) == {"options": {"num_gpu": 1}}


def test_a_ceiling_that_no_request_can_reach_is_named() -> None:
    assert unreachable_limits({"narrow": ModelConfig(allow_options=("num_ctx",), num_ctx=5)}) == []
    assert unreachable_limits({"pinned": ModelConfig(allow_options=(), num_ctx=5, default_num_ctx=5)}) == []
    [warning] = unreachable_limits({"closed": ModelConfig(allow_options=(), num_ctx=5)})
    assert warning.startswith('models."closed": num_ctx bounds nothing')


def test_a_ceiling_for_ever_bounds_nothing_and_a_fraction_of_a_second_is_sent_as_one() -> None:
    assert body_of("/api/chat", "for-ever", keep_alive="24h") == {"keep_alive": "24h"}
    assert body_of("/api/chat", "for-ever") == {"keep_alive": 0.5}


@pytest.mark.parametrize(
    "fields",
    [
        {"options": [], "keep_alive": 1},
        {"options": {"num_ctx": "many", "num_predict": "all"}, "keep_alive": "5"},
        {"options": {"num_ctx": True, "num_predict": [1]}, "keep_alive": {}},
    ],
)
def test_a_value_of_the_wrong_type_goes_to_ollama_which_words_the_refusal(fields: dict[str, Any]) -> None:
    assert body_of("/api/generate", "capped", **fields) == fields


@pytest.mark.parametrize(
    ("endpoint", "field"),
    [
        ("/v1/chat/completions", "max_tokens"),
        ("/v1/completions", "max_tokens"),
        ("/v1/responses", "max_output_tokens"),
    ],
)
def test_other_dialects_are_bounded_by_their_own_field_and_carry_nothing_else(endpoint: str, field: str) -> None:
    assert body_of(endpoint, "capped", **{field: 0}) == {field: 100}
    assert body_of(endpoint, "capped", **{field: 5000}) == {field: 100}
    assert body_of(endpoint, "capped") == {field: 100}
    assert body_of(endpoint, "given:1b") == {field: 50}
    assert body_of(endpoint, "pinned") == {}


@pytest.mark.parametrize("asked", [{}, {"max_tokens": 0}, {"max_tokens": -3}])
def test_a_request_that_anthropics_route_would_refuse_is_still_refused(asked: dict[str, Any]) -> None:
    assert body_of("/v1/messages", "capped", **asked) == asked
    assert body_of("/v1/messages", "capped", max_tokens=5000) == {"max_tokens": 100}


def test_new_limits_replace_the_old_ones() -> None:
    limits = ModelLimits({"a": ModelConfig(max_tokens=1)})
    limits.replace({"b": ModelConfig(max_tokens=2)})
    assert limits.applied("/api/chat", "a", {}) == {}
    assert limits.applied("/api/chat", "b", {}) == {"options": {"num_predict": 2}}


def test_the_operator_is_told_which_settings_have_no_effect_on_v1() -> None:
    models = {
        "plain": ModelConfig(max_tokens=5, parallel=1),
        "both": ModelConfig(num_ctx=4096, default_keep_alive=60, max_tokens=5),
    }
    [warning] = uncarried_limits(models)
    assert warning.startswith('models."both": num_ctx, default_keep_alive cannot be applied to requests on /v1')
