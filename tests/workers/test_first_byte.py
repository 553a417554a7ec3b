"""How long a call may wait for its first byte, while its model is loaded and afterwards. Times are the loop's."""

from __future__ import annotations

import math

from service.backend.backend import Backend, build_backend
from service.backend.calls import Call
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


def a_call(*, is_streamed: bool = True) -> Call:
    return Call(RUNNER, 1, is_streamed)


async def test_a_model_that_must_be_loaded_has_the_time_of_a_load_and_from_then_on_that_of_a_prompt() -> None:
    backend = a_backend()
    patience = FirstByte(backend, a_call(), 100, TIMEOUTS, CLOCK)
    assert patience.due(START) == patience.due(START + 1_799) == START + 1_800
    backend.placement.listed(map(Listed, [RUNNER]), 2)
    assert patience.due(START + 1_800) == START + 1_800 + 7_200


async def test_that_counts_from_when_the_model_was_loaded_and_not_from_when_this_is_noticed() -> None:
    backend, clock = a_backend(), StoppedClock()
    patience = FirstByte(backend, a_call(), 100, TIMEOUTS, clock)
    patience.due(START)
    backend.placement.listed(map(Listed, [RUNNER]), 200_000)
    clock.now = 1_800_000
    assert patience.due(START + 1_800) == START + 200 + 7_200


async def test_a_loaded_model_has_the_time_of_a_prompt_from_the_start() -> None:
    patience = FirstByte(a_backend(RUNNER), a_call(), 100, TIMEOUTS, CLOCK)
    assert patience.due(START) == patience.due(START + 7_000) == START + 7_200
    error = patience.run_out()
    assert error is not None
    assert (error.code, error.fault) == ("first_byte_timeout", Fault.TRANSIENT)
    assert "7200 s (timeouts.first_byte_resident_seconds)" in str(error)


async def test_so_has_a_model_that_runs_elsewhere() -> None:
    assert FirstByte(a_backend(), Call("big:cloud", 1, True), 100, TIMEOUTS, CLOCK).due(START) == START + 7_200


async def test_what_is_learned_of_its_prompts_shortens_it_and_the_words_say_so() -> None:
    backend = a_backend(RUNNER)
    backend.work.prompt_rates.learn(RUNNER, 4_000, Counts(prompt_tokens=1_000, prompt_ms=10_000))
    patience = FirstByte(backend, a_call(), 40_000, TIMEOUTS, CLOCK)
    assert patience.due(START) == START + 1_000
    assert "1000 s (ten times what the model's rate says of 40000 bytes" in str(patience.run_out())


async def test_it_says_nothing_of_a_whole_reply_which_takes_as_long_as_its_answer() -> None:
    backend = a_backend(RUNNER)
    backend.work.prompt_rates.learn(RUNNER, 4_000, Counts(prompt_tokens=1_000, prompt_ms=10_000))
    assert FirstByte(backend, a_call(), 40_000, TIMEOUTS, CLOCK, lambda: None).due(START) == START + 7_200


async def test_the_words_of_a_load_that_hangs_name_its_own_setting() -> None:
    patience = FirstByte(a_backend(), a_call(), 100, TIMEOUTS, CLOCK)
    patience.due(START)
    assert "1800 s (timeouts.first_byte_cold_seconds)" in str(patience.run_out())


async def test_a_whole_reply_goes_on_and_tells_once_that_its_loaded_model_is_silent() -> None:
    told: list[str] = []
    backend = a_backend()
    patience = FirstByte(backend, a_call(), 100, TIMEOUTS, CLOCK, lambda: told.append("silent"))
    due = patience.due(START)
    assert patience.run_out() is None
    # While the model is loaded nothing is said of it.
    assert (told, patience.due(due)) == ([], due + 1_800)
    backend.placement.listed(map(Listed, [RUNNER]), 2)
    due = patience.due(due + 1_800)
    assert patience.run_out() is None
    assert (told, patience.due(due)) == (["silent"], float("inf"))
    backend.placement.listed(map(Listed, ()), 3)
    assert patience.due(due + 1) == float("inf")


# Behind calls that were sent before


class Line:
    """Calls to a loaded model, each with its patience; both clocks are the same."""

    def __init__(self, *are_streamed: bool) -> None:
        self.backend, self.clock = a_backend(RUNNER), StoppedClock()
        self.calls = [a_call(is_streamed=is_streamed) for is_streamed in are_streamed]
        for call in self.calls:
            self.backend.placement.holds.calls.begin(call, RUNNER)
        self.patience = [
            FirstByte(self.backend, call, 100, TIMEOUTS, self.clock, None if call.is_streamed else lambda: None)
            for call in self.calls
        ]
        self.clock.now = 0
        for one in self.patience:
            one.due(0.0)

    def due(self, number: int, second: float) -> float:
        """What the call of this number has, when it is asked at this second."""
        self.clock.now = int(second * 1000)
        return self.patience[number].due(second)

    def hear(self, number: int, second: int) -> None:
        self.calls[number].heard_at = second * 1000

    def end(self, number: int, second: int) -> None:
        self.backend.placement.holds.calls.end(self.calls[number], second * 1000)


async def test_the_limit_does_not_run_while_an_earlier_call_is_being_answered_and_counts_from_its_end() -> None:
    line = Line(True, True, True)
    line.hear(0, 7_100)
    assert line.due(1, 7_200) == line.due(2, 7_200) == 7_200 + 7_200
    line.end(0, 8_000)
    assert line.due(1, 14_400) == line.due(2, 14_400) == 8_000 + 7_200
    line.hear(1, 15_000)
    assert line.due(2, 15_200) == 15_200 + 7_200


async def test_an_earlier_call_that_has_stalled_keeps_nobody_and_the_limit_counts_from_then() -> None:
    line = Line(True, True)
    line.hear(0, 1_000)
    assert line.due(1, 7_200) == 1_000 + TIMEOUTS.stall_seconds + 7_200


async def test_an_earlier_stream_without_a_byte_keeps_nobody_nor_does_its_end() -> None:
    line = Line(True, True)
    assert line.due(1, 7_000) == 7_200
    line.end(0, 7_200)
    assert line.due(1, 7_200) == 7_200


async def test_a_later_call_that_is_answered_keeps_nobody() -> None:
    line = Line(True, True)
    line.hear(1, 7_100)
    assert line.due(0, 7_200) == 7_200
    line.end(1, 7_150)
    assert line.due(0, 7_200) == 7_200


async def test_an_earlier_whole_reply_keeps_those_behind_it_until_it_is_late() -> None:
    line = Line(False, True)
    assert line.due(0, 7_200) == 7_200
    assert line.due(1, 7_199) == 7_199 + 7_200
    line.clock.now = 7_200_000
    assert line.patience[0].run_out() is None
    assert line.due(1, 9_000) == 7_200 + 7_200
    line.end(0, 10_000)
    assert line.due(1, 10_000) == 7_200 + 7_200


async def test_calls_to_another_runner_keep_nobody() -> None:
    line = Line(True)
    other = Call("b:latest", 0, is_streamed=True, heard_at=7_100_000)
    line.backend.placement.holds.calls.begin(other, other.runner)
    later = a_call()
    line.backend.placement.holds.calls.begin(later, RUNNER)
    assert later.free_since(7_200_000, 900_000) == -math.inf


async def test_when_a_call_in_the_middle_ends_those_behind_it_have_waited_for_what_it_waited_for() -> None:
    line = Line(True, True, True)
    line.hear(0, 1_000)
    line.end(0, 2_000)
    line.end(1, 3_000)
    assert line.due(2, 7_200) == 2_000 + 7_200
    assert [call is line.calls[2] for call in line.backend.placement.holds.calls] == [True]
