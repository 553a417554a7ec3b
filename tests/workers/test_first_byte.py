"""How long a call may wait for its first byte, while its model is loaded and afterwards. Times are the loop's."""

from __future__ import annotations

from service.backend.backend import Backend, build_backend
from service.backend.http.connections import Connections
from service.backend.models import Listed
from service.clock import Clock
from service.config import BackendConfig, Config, TimeoutsConfig
from service.errors import Fault
from service.job import Counts
from service.workers.first_byte import FirstByte

RUNNER = "a:latest"
TIMEOUTS = TimeoutsConfig(first_byte_cold_seconds=1_800, first_byte_resident_seconds=7_200)
START = 1_000.0


class StoppedClock(Clock):
    """Stands still until the test sets it, in milliseconds."""

    now = 2

    def now_ms(self) -> int:
        return self.now


CLOCK = StoppedClock()


def a_backend(*loaded: str) -> Backend:
    backend = build_backend(BackendConfig(), Connections(), Config(), CLOCK)
    backend.placement.listed(map(Listed, loaded), 0)
    backend.placement.sent(RUNNER, 1)
    return backend


async def test_a_model_that_must_be_loaded_has_the_time_of_a_load_and_from_then_on_that_of_a_prompt() -> None:
    backend = a_backend()
    patience = FirstByte(backend, RUNNER, 100, TIMEOUTS, CLOCK)
    assert patience.due(START) == patience.due(START + 1_799) == START + 1_800
    backend.placement.listed(map(Listed, [RUNNER]), 2)
    assert patience.due(START + 1_800) == START + 1_800 + 7_200


async def test_that_counts_from_when_the_model_was_loaded_and_not_from_when_this_is_noticed() -> None:
    backend, clock = a_backend(), StoppedClock()
    patience = FirstByte(backend, RUNNER, 100, TIMEOUTS, clock)
    patience.due(START)
    backend.placement.listed(map(Listed, [RUNNER]), 200_000)
    clock.now = 1_800_000
    assert patience.due(START + 1_800) == START + 200 + 7_200


async def test_a_loaded_model_has_the_time_of_a_prompt_from_the_start() -> None:
    patience = FirstByte(a_backend(RUNNER), RUNNER, 100, TIMEOUTS, CLOCK)
    assert patience.due(START) == patience.due(START + 7_000) == START + 7_200
    error = patience.run_out()
    assert error is not None
    assert (error.code, error.fault) == ("first_byte_timeout", Fault.TRANSIENT)
    assert "7200 s (timeouts.first_byte_resident_seconds)" in str(error)


async def test_so_has_a_model_that_runs_elsewhere() -> None:
    assert FirstByte(a_backend(), "big:cloud", 100, TIMEOUTS, CLOCK).due(START) == START + 7_200


async def test_what_is_learned_of_its_prompts_shortens_it_and_the_words_say_so() -> None:
    backend = a_backend(RUNNER)
    backend.work.prompt_rates.learn(RUNNER, 4_000, Counts(prompt_tokens=1_000, prompt_ms=10_000))
    patience = FirstByte(backend, RUNNER, 40_000, TIMEOUTS, CLOCK)
    assert patience.due(START) == START + 1_000
    assert "1000 s (ten times what the model's rate says of 40000 bytes" in str(patience.run_out())


async def test_it_says_nothing_of_a_whole_reply_which_takes_as_long_as_its_answer() -> None:
    backend = a_backend(RUNNER)
    backend.work.prompt_rates.learn(RUNNER, 4_000, Counts(prompt_tokens=1_000, prompt_ms=10_000))
    assert FirstByte(backend, RUNNER, 40_000, TIMEOUTS, CLOCK, lambda: None).due(START) == START + 7_200


async def test_the_words_of_a_load_that_hangs_name_its_own_setting() -> None:
    patience = FirstByte(a_backend(), RUNNER, 100, TIMEOUTS, CLOCK)
    patience.due(START)
    assert "1800 s (timeouts.first_byte_cold_seconds)" in str(patience.run_out())


async def test_a_whole_reply_goes_on_and_tells_once_that_its_loaded_model_is_silent() -> None:
    told: list[str] = []
    backend = a_backend()
    patience = FirstByte(backend, RUNNER, 100, TIMEOUTS, CLOCK, lambda: told.append("silent"))
    due = patience.due(START)
    assert patience.run_out() is None
    # While the model is loaded nothing is said of it.
    assert (told, patience.due(due)) == ([], due + 1_800)
    backend.placement.listed(map(Listed, [RUNNER]), 2)
    due = patience.due(due + 1_800)
    assert patience.run_out() is None
    assert (told, patience.due(due)) == (["silent"], float("inf"))
