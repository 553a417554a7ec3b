"""The scheduler says why a job waits, and what it says is what it goes by."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from service.backend.backend import Backend
from service.backend.breakers import Evidence
from service.backend.choice import choose
from service.job import Line, Priority, model_of_runner
from service.key import owner_of_key
from service.scheduling.candidates import Candidate, Candidates
from service.scheduling.scheduler import Reason, Scheduler, Turn
from tests.support.ollama_in_time import Fits, any_two, one_at_a_time
from tests.support.placement_simulation import A_LONG, CLOUD, A, B, C, SimulatedService

RUNNERS = (A, B, C, A_LONG, CLOUD)
OWNERS = (owner_of_key("1"), owner_of_key("2"), "192.0.2.1")
KEYED = Line(A, OWNERS[0], 0)
LINE_A, LINE_B = Line(A, "newcomer", 0), Line(B, "newcomer", 0)


class WatchedScheduler(Scheduler):
    """Looks, before each choice, at how the chosen job's wait was explained."""

    choices = 0

    def _turn(self, backend: Backend, mine: dict[str, Candidate], *, may_load: bool, may_evict: bool) -> Turn | None:
        turn = super()._turn(backend, mine, may_load=may_load, may_evict=may_evict)
        if turn is not None:
            waiting = self._backlog.waiting_for(turn.runner)
            among = waiting if turn.owners is None else turn.owners
            owners = [owner for owner in among if owner in waiting and self._backlog.may_run(owner)]
            for owner in owners:
                # A reason would forbid what is chosen now.
                assert self.explain(Line(turn.runner, owner, Priority.NORMAL)) is None
            self.choices += bool(owners)
        return turn


class ExplainedService(SimulatedService):
    scheduler: WatchedScheduler
    chance = random.Random(0)

    def _use_pool(self) -> None:
        super()._use_pool()
        self.scheduler = WatchedScheduler(self.backlog, self.pool, self.clock)

    def check(self) -> None:
        """When seats were given out, each line that still waits has a reason, and none a free seat that it could take.

        Some of the lines are looked at, others the next time.
        """
        self.give_out_seats()
        lines = self.waiting_lines
        for line in self.chance.sample(lines, min(2, len(lines))):
            reason = self.scheduler.explain(line)
            assert reason is not None
            if reason in (Reason.TURN, Reason.NEXT):
                assert not any(self._could_be_given(backend.own, line.runner) for backend in self.backends)

    def _could_be_given(self, backend: Backend, runner: str) -> bool:
        """Whether there is a free seat that a job of this runner would get, asked of the placement alone."""
        asked = Candidates(self.backlog, self.pool)
        candidates = asked.of(backend, self.time.now, asked.look())
        if not backend.is_available or backend.free_seats <= 0 or runner not in candidates:
            return False
        elsewhere = self.pool.loaded_elsewhere(backend, candidates)
        since = {one: known.since for one, known in candidates.items()}
        return choose(backend.placement, since, self.time.now, elsewhere=elsewhere) == runner


@given(
    seed=st.integers(0, 2**32),
    fits=st.sampled_from([one_at_a_time, any_two]),
    backends=st.integers(1, 3),
    load_ms=st.sampled_from([0, 700, 20_000]),
    key_limit=st.sampled_from([None, 1, 2]),
)
@settings(max_examples=10, deadline=None)
def test_every_wait_has_one_reason_and_nothing_is_chosen_against_it(
    seed: int, fits: Fits, backends: int, load_ms: int, key_limit: int | None
) -> None:
    chance = random.Random(seed)
    service = ExplainedService(max_swap_wait_ms=5_000)
    service.key_limit, service.chance = key_limit, chance
    for number in range(backends):
        loaded = [chance.choice(RUNNERS[:3])] if chance.random() < 0.5 else []
        service.add_backend(str(number), fits=fits, seats=chance.randint(1, 4), load_ms=load_ms, loaded=loaded)
    service.on_event = service.check
    for _ in range(25):
        backend = chance.choice(service.backends)
        match chance.choice(["submit", "submit", "submit", "wait", "wait", "evict", "away", "drain", "fault"]):
            case "submit":
                for _ in range(chance.randint(1, 5)):
                    runner, cost = chance.choice(RUNNERS), chance.randint(1, 30_000)
                    service.submit(runner, cost, owner=chance.choice(OWNERS), priority=chance.choice((-1, 0, 1)))
            case "wait":
                service.run(service.time.now + chance.choice([1, 100, 3_000, 20_000]))
            case "evict":
                backend.ollama.evict(model_of_runner(chance.choice(RUNNERS)))
            case "away":
                backend.is_available = not backend.is_available
            case "drain":
                backend.own.is_drained = not backend.own.is_drained
            case "fault":
                for number in range(5):
                    evidence = Evidence(str(number), chance.choice(OWNERS), number)
                    backend.own.breakers.model_failed(model_of_runner(chance.choice(RUNNERS)), None, evidence)
        service.check()
    for backend in service.backends:
        backend.is_available, backend.own.is_drained = True, False
    service.run()
    assert service.scheduler.choices or not service.jobs


def test_a_newcomer_is_told_what_it_would_meet() -> None:
    service = SimulatedService()
    backend = service.add_backend(seats=2, loaded=[A], unfit=(A, B))
    explain = service.scheduler.explain
    assert explain(LINE_A) is None
    service.submit(A, 10_000)
    service.run(100)
    assert (explain(LINE_A), explain(LINE_B)) == (None, Reason.DRAINING)
    service.submit(A, 10_000)
    service.run(200)
    assert explain(LINE_A) is Reason.NEXT
    service.submit(A, 10_000)
    assert explain(LINE_A) is Reason.TURN
    assert explain(LINE_B) is Reason.OTHER_MODEL
    backend.own.is_drained = True
    assert explain(LINE_A) is Reason.DRAINED
    backend.is_available = False
    assert explain(LINE_A) is Reason.NO_BACKEND


def test_a_load_is_a_reason_for_the_jobs_behind_the_one_that_causes_it() -> None:
    service = SimulatedService()
    service.add_backend(seats=4, load_ms=5_000)
    for _ in range(2):
        service.submit(A, 1_000)
    service.run(100)
    assert service.scheduler.explain(Line(A, "owner", 0)) is Reason.LOADING
    assert service.scheduler.explain(LINE_B) is Reason.OTHER_MODEL


def test_a_key_that_runs_as_many_jobs_as_it_may_is_the_reason_of_its_own_jobs_only() -> None:
    service = SimulatedService()
    service.key_limit = 1
    service.add_backend(seats=4, loaded=[A])
    for _ in range(2):
        service.submit(A, 10_000, owner=OWNERS[0])
    service.run(100)
    reason = service.scheduler.explain(KEYED)
    assert (reason, service.scheduler.explain(LINE_A)) == (Reason.KEY_LIMIT, None)


def test_a_model_that_failed_too_often_rests_for_those_whose_jobs_have_failed() -> None:
    service = SimulatedService()
    backend = service.add_backend(seats=4, loaded=[A])
    for number in range(5):
        evidence = Evidence(str(number), LINE_A.owner, number)
        backend.own.breakers.model_failed(model_of_runner(A), None, evidence)
    explain, other = service.scheduler.explain, LINE_A._replace(owner="other")
    assert (explain(LINE_A), explain(LINE_B), explain(other)) == (Reason.BREAKER, None, None)
    service.submit(A, 1_000, owner="other")
    assert [explain(LINE_A), explain(LINE_A._replace(owner="third"))] == [Reason.BREAKER, Reason.BREAKER]


def test_a_model_that_hangs_rests_for_all() -> None:
    service = SimulatedService()
    backend = service.add_backend(seats=4, loaded=[A])
    silence, model = backend.own.silence, model_of_runner(A)
    assert [silence.met_limit(model, 10, 600), silence.met_limit(model, 20, 700)] == [False, True]
    assert service.scheduler.explain(LINE_A) is Reason.BREAKER
    silence.recovered(model)
    assert service.scheduler.explain(LINE_A) is None
