"""Models of which nothing is known are tried together, with sends held: nothing waits that need not, nothing hangs.

In simulated time, with loads of 1 s; times are milliseconds.
"""

from __future__ import annotations

import random
from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.backend.calls import Call
from service.backend.models import Listed
from service.job import model_of_runner
from tests.support.ollama_in_time import Fits, any_two, one_at_a_time
from tests.support.placement_simulation import A, B, C, D, SimulatedService, assert_safe

MODELS = {runner: model_of_runner(runner) for runner in (A, B, C, D)}


def any_three(models: Collection[str]) -> bool:
    return len(models) <= 3


def serving(fits: Fits, *, seats: int = 4, loaded: Collection[str] = ()) -> SimulatedService:
    """A service with one backend, where it is watched at each event that nobody is sent to whom another waits for."""
    service = SimulatedService()
    service.add_backend(fits=fits, seats=seats, loaded=loaded)
    service.on_event = lambda: assert_safe(service)
    return service


def test_with_room_a_second_models_first_call_waits_for_its_load_only() -> None:
    service = serving(any_three)
    service.submit(A, 100_000)
    service.run(5_000)
    second = service.submit(B, 1_000)
    service.run(8_000)
    assert second.waited == 1_000
    third = service.submit(C, 1_000)
    service.run()
    assert (third.waited, service.loads) == (1_000, 3)
    assert service.backends[0].placement.fitting.fit({A, B, C})


def test_without_room_it_waits_for_the_answer_that_runs_as_a_drain_would_have() -> None:
    service = serving(one_at_a_time)
    service.submit(A, 10_000)
    service.run(5_000)
    second = service.submit(B, 1_000)
    more = service.submit(A, 1_000)
    service.run()
    # The first load, the answer and the second load.
    assert second.first_byte == 1_000 + 10_000 + 1_000
    assert more.started is not None
    assert more.started > second.first_byte
    assert service.backends[0].ollama.hazards == []
    assert not service.backends[0].placement.fitting.may_be_tried({MODELS[A], MODELS[B]}, service.time.now)


def test_a_chat_does_not_wait_for_eight_embedders() -> None:
    service = serving(any_three, seats=5)
    service.keep_busy(A, 700, callers=8)
    service.run(20_000)
    chat = service.submit(B, 5_000)
    service.run(60_000)
    # One seat to come free, and the load.
    assert chat.waited <= 700 + 1_000
    assert service.backends[0].ollama.hazards == []


def test_what_is_found_loaded_together_is_known_to_fit() -> None:
    service = serving(any_three, loaded=[A, B, C])
    service.submit(A, 100_000)
    service.run(2_000)
    others = [service.submit(runner, 1_000) for runner in (B, C)]
    service.run()
    assert [job.waited for job in others] == [0, 0]
    assert service.loads == 0


def test_three_known_pairs_are_no_knowledge_of_all_three() -> None:
    service = serving(any_two)
    fitting = service.backends[0].placement.fitting
    for pair in ((A, B), (A, C), (B, C)):
        fitting.remember(set(pair))
    for runner in (A, B):
        service.keep_busy(runner, 900, callers=1)
    service.run(10_000)
    third = service.submit(C, 1_000)
    service.run(200_000)
    assert third.ended is not None
    assert service.backends[0].ollama.hazards == []


@pytest.mark.parametrize("fits", [one_at_a_time, any_three])
def test_a_trial_whose_caller_leaves_is_held_to_its_end(fits: Fits) -> None:
    service = serving(fits)
    service.submit(A, 10_000)
    service.run(5_000)
    tried = service.submit(B, 1_000)
    service.run(5_100)
    service.abandon(tried)
    again = service.submit(A, 1_000)
    service.run()
    assert service.backends[0].ollama.hazards == []
    # Ollama's loop may still wait for the answer that ran.
    assert again.started is not None
    assert again.started >= 11_000


def test_a_call_with_keep_alive_that_has_had_no_byte_lets_no_trial_begin() -> None:
    service = serving(any_three)
    service.submit(A, 1_000)
    service.run()
    service.run(service.time.now + 5_000)
    placement = service.backends[0].placement
    placement.sent(A, service.time.now)
    call = Call(A, service.time.now, is_streamed=True, is_settled=lambda: False)
    placement.holds.call_begins(call, A)
    waiting = service.submit(B, 1_000)
    service.run(service.time.now + 3_000)
    assert waiting.started is None
    call.is_settled = lambda: True
    service.run(service.time.now + 3_000)
    assert waiting.started is not None


def test_with_room_for_one_eighty_jobs_of_four_models_cost_one_load_more_than_with_what_the_first_run_learnt() -> None:
    def run(unfit: Collection[str]) -> int:
        service = SimulatedService()
        service.add_backend(fits=one_at_a_time, seats=4, unfit=unfit)
        for _ in range(20):
            for runner in MODELS:
                service.submit(runner, 100)
        service.run()
        return service.loads

    assert run(()) <= 5
    assert run(tuple(MODELS)) == 4


def test_after_a_trial_that_found_no_room_the_next_comes_much_later() -> None:
    service = serving(one_at_a_time)
    holds = service.backends[0].placement.holds
    service.submit(A, 10_000)
    service.run(2_000)
    service.submit(B, 1_000)
    service.run()
    service.run(service.time.now + 20_000)
    assert holds.next_trial_at >= 300_000


def test_a_third_model_that_drives_one_out_says_that_the_three_do_not_fit_and_the_pair_does() -> None:
    service = serving(any_two)
    placement = service.backends[0].placement
    placement.listed([Listed(MODELS[A]), Listed(MODELS[B])], 10)
    placement.listed([Listed(MODELS[B]), Listed(MODELS[C])], 20)
    assert placement.fitting.fit({A, B})
    assert placement.fitting.fit({B, C})
    assert not placement.fitting.may_be_tried(set(MODELS.values()) - {MODELS[D]}, 30)


@given(seed=st.integers(0, 2**32), room=st.sampled_from([1, 2, 3]), seats=st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_nothing_hangs_and_no_set_is_tried_twice(seed: int, room: int, seats: int) -> None:
    chance = random.Random(seed)
    service = serving(lambda models: len(models) <= room, seats=seats)
    holds = service.backends[0].placement.holds
    tried: list[frozenset[str]] = []

    def look() -> None:
        assert_safe(service)
        assert service.backends[0].ollama.hazards == []
        hold = holds.hold
        if hold is not None and hold.is_trial and (not seen or seen[-1] is not hold):
            seen.append(hold)
            tried.append(hold.beside | {hold.model})

    seen: list[object] = []
    service.on_event = look
    for _ in range(25):
        match chance.choice(["submit", "submit", "wait", "wait", "leave"]):
            case "submit":
                for _ in range(chance.randint(1, 4)):
                    service.submit(chance.choice(list(MODELS)), chance.randint(1, 20_000))
            case "wait":
                service.run(service.time.now + chance.choice([1, 100, 3_000, 20_000]))
            case "leave":
                silent = [job for job in service.jobs if job.started is not None and job.first_byte is None]
                silent = [job for job in silent if job.ended is None]
                if silent:
                    service.abandon(chance.choice(silent))
    service.run()
    # A trial whose caller left may have shown nothing.
    if room < 3:
        assert len(tried) <= len(set(tried)) + sum(job.first_byte is None for job in service.jobs)


def test_an_owner_forces_one_trial_at_a_time_over_all_backends() -> None:
    service = SimulatedService()
    for name in ("one", "two"):
        service.add_backend(name, fits=one_at_a_time, seats=2)
    service.submit(A, 100_000, owner="first")
    service.submit(B, 100_000, owner="first")
    service.run(5_000)
    tried = service.submit(C, 1_000, owner="greedy")
    held = service.submit(D, 1_000, owner="greedy")
    other = service.submit(D, 1_000, owner="modest")
    service.run(8_000)
    assert [tried.started, held.started, other.started] == [5_000, None, 5_000]
    service.run()


def test_a_trial_whose_limit_has_passed_ends_without_a_result_and_is_left_alone_for_an_hour() -> None:
    service = serving(one_at_a_time)
    service.submit(A, 100_000)
    service.run(5_000)
    tried = service.submit(B, 1_000)
    service.run(6_000)
    holds, fitting = service.backends[0].placement.holds, service.backends[0].placement.fitting
    assert not holds.timed_out(A, service.time.now)
    assert holds.timed_out(B, service.time.now)
    assert holds.hold is None
    service.on_event = lambda: None
    service.abandon(tried)
    models = {MODELS[A], MODELS[B]}
    assert [fitting.may_be_tried(models, service.time.now + after) for after in (3_599_000, 3_600_000)] == [False, True]


def test_what_unloads_by_itself_has_not_made_way() -> None:
    service = serving(any_three)
    service.submit(A, 10_000, has_keep_alive=True)
    service.run(5_000)
    service.submit(B, 1_000)
    service.run(5_500)
    service.backends[0].ollama.loaded.pop(MODELS[A])
    service.on_event = lambda: None
    service.run(7_000)
    assert service.backends[0].placement.fitting.unfit == {}


def test_a_model_that_is_deleted_while_it_answers_ends_the_hold_with_its_answer() -> None:
    service = serving(one_at_a_time)
    placement = service.backends[0].placement
    placement.installed = frozenset(MODELS.values())
    service.submit(A, 10_000)
    service.run(5_000)
    tried = service.submit(B, 1_000)
    service.run(6_000)
    placement.installed = frozenset(MODELS.values()) - {MODELS[A]}
    service.run()
    assert tried.ended is not None
    assert placement.holds.hold is None


def test_a_trial_of_which_nothing_was_sent_holds_nobody() -> None:
    service = serving(any_three)
    backend = service.backends[0]
    service.submit(A, 10_000)
    service.run(5_000)
    service.pool.take(backend.own, B, "owner")
    assert backend.placement.holds.hold is not None
    service.pool.free(backend.own, B)
    assert backend.placement.holds.hold is None


def test_a_try_that_showed_nothing_is_not_made_again_for_an_hour_also_with_what_fitted_long_ago() -> None:
    service = serving(one_at_a_time)
    placement = service.backends[0].placement
    placement.fitting.old = [frozenset({A, B})]
    service.submit(A, 10_000)
    service.run(5_000)
    tried = service.submit(B, 1_000)
    service.run(6_000)
    assert placement.holds.timed_out(B, service.time.now)
    service.on_event = lambda: None
    service.abandon(tried)
    again = service.submit(B, 1_000)
    service.run(9_000)
    assert again.started is None
