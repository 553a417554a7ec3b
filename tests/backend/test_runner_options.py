"""What Ollama serves with one runner is one line, and what it would load anew for is another."""

from __future__ import annotations

from typing import Any

import pytest

from service.backend.models import InstalledModel
from service.backend.runner_options import ModelTraits, merged
from service.backend.sharing import Sharing
from service.job import model_key, runner_key
from service.simulated.models import SimulatedModel
from service.simulated.options import read_options

LLAMA = ModelTraits(families=frozenset({"llama"}), own=frozenset())
DRAFTED = LLAMA._replace(has_draft=True)
DEEPSEEK = LLAMA._replace(families=frozenset({"deepseek2"}))
UNASKED = LLAMA._replace(own=None)
UNTOLD = ModelTraits()
MLX = ModelTraits(is_mlx=True)
STUB = ModelTraits(is_remote=True)


def key(options: dict[str, Any], *told: ModelTraits, shift: object = None) -> str:
    return merged(runner_key("m", options, shift), told)


@pytest.mark.parametrize("options", [{"num_gpu": -1}, {"num_gpu": -7}, {"num_gpu": -1.0}, {"temperature": 1}])
def test_what_leaves_it_to_ollama_makes_no_other_runner(options: dict[str, Any]) -> None:
    assert runner_key("m", options) == runner_key("m")


@pytest.mark.parametrize(("one", "other"), [(4096, 4096.0), (4096, 4096.9), (0, 0.0)])
def test_numbers_are_one_where_ollama_reads_them_as_one(one: float, other: float) -> None:
    assert runner_key("m", {"num_ctx": one}) == runner_key("m", {"num_ctx": other})


@pytest.mark.parametrize(
    ("options", "shift", "traits"),
    [
        ({}, True, LLAMA),
        ({}, True, UNASKED),
        ({}, False, DEEPSEEK),
        ({"num_thread": 0}, None, LLAMA),
        ({"draft_num_predict": 0}, None, LLAMA),
        ({"draft_num_predict": 4}, None, DRAFTED),
        ({"num_ctx": 4096, "use_mmap": False}, False, MLX),
        ({"num_ctx": 4096}, True, STUB),
    ],
)
def test_what_a_model_has_by_itself_makes_no_other_runner(
    options: dict[str, Any], shift: object, traits: ModelTraits
) -> None:
    assert key(options, traits, shift=shift) == "m:latest"


@pytest.mark.parametrize(
    ("options", "shift", "traits"),
    [
        ({}, False, LLAMA),
        ({}, True, DEEPSEEK),
        ({}, True, UNTOLD),
        ({"num_thread": 0}, None, UNASKED),
        ({"num_thread": 0}, None, LLAMA._replace(own=frozenset({"num_thread"}))),
        ({"num_thread": 4}, None, LLAMA),
        ({"draft_num_predict": 4}, None, LLAMA),
        ({"draft_num_predict": 0}, None, DRAFTED),
        ({"main_gpu": 0}, None, LLAMA),
        ({"use_mmap": True}, None, LLAMA),
        ({"num_batch": 512}, None, LLAMA),
        ({"num_ctx": 4096}, None, LLAMA),
    ],
)
def test_what_may_be_a_difference_is_another_runner(
    options: dict[str, Any], shift: object, traits: ModelTraits
) -> None:
    assert key(options, traits, shift=shift) == runner_key("m", options, shift) != "m:latest"


def test_only_what_is_no_difference_on_any_backend_is_left_out() -> None:
    assert key({"num_ctx": 1}, MLX, LLAMA) == runner_key("m", {"num_ctx": 1})
    assert key({"num_thread": 0}, MLX, LLAMA) == "m:latest"
    assert key({}, DEEPSEEK, LLAMA, shift=True) == runner_key("m", {}, True)
    assert key({"num_ctx": 1}, shift=True) == runner_key("m", {"num_ctx": 1}, True)


@pytest.mark.parametrize("has_draft", [True, False])
def test_whatever_is_one_key_is_one_runner_of_the_simulated_ollama(has_draft: bool) -> None:
    model = SimulatedModel("m", has_draft=has_draft)
    traits = DRAFTED if has_draft else LLAMA
    asked: list[dict[str, Any]] = [
        {},
        {"num_thread": 0},
        {"num_thread": 2},
        {"draft_num_predict": 0},
        {"draft_num_predict": 4},
        {"num_gpu": -3},
        {"num_ctx": 2048},
        {"num_ctx": 2048.0},
        {"main_gpu": 0},
    ]
    for one in asked:
        for other in asked:
            runners = [read_options(model, each, shift=True, automatic_context=4096).runner for each in (one, other)]
            is_one = key(one, traits, shift=True) == key(other, traits)
            assert is_one == (runners[0].fits(runners[1]) and runners[1].fits(runners[0])), (one, other)


@pytest.mark.parametrize("name", ["llama3.2:local", "LLAMA3.2:LOCAL", "library/llama3.2:latest:Local"])
def test_a_name_that_says_where_it_runs_is_the_same_name(name: str) -> None:
    assert model_key(name) == "llama3.2:latest"
    assert model_key("llama3.2:1b:local") == "llama3.2:1b"


def test_a_models_traits_are_what_its_server_tells() -> None:
    sharing = Sharing()
    details = {"family": "llama", "families": ["llama", "mllama"], "format": "gguf"}
    plain = InstalledModel("plain", "1", 5, {"details": details})
    assert sharing.traits(plain) == ModelTraits(families=frozenset({"llama", "mllama"}))
    sharing.learn(plain, None)
    assert sharing.traits(plain).own is None
    sharing.learn(plain, "FROM /blobs/1\nDRAFT /blobs/2\nnum_thread 8")
    assert sharing.traits(plain) == ModelTraits(
        families=frozenset({"llama", "mllama"}), own=frozenset({"num_thread"}), has_draft=True
    )
    mlx = InstalledModel("mlx", "2", 5, {"details": {"format": "safetensors"}})
    assert sharing.traits(mlx).is_mlx
    for entry in ({"remote_model": "x"}, {"remote_host": "https://ollama.com"}):
        assert sharing.traits(InstalledModel("stub", "3", 5, entry)).is_remote
    assert sharing.traits(InstalledModel("x:cloud", "4", 5, {})).is_remote
