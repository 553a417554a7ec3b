"""However many callers have requests that always fail: nobody else waits for them, but for one job.

Waits are counted in the jobs that are sent before one's own, in simulated time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from corral.breaker import Breaker
from service.backend.breakers import Breakers
from service.backend.classification import failure_of
from service.endpoints import CHAT
from service.errors import BackendError, Fault
from service.job import model_of_runner
from tests.support.ollama_in_time import any_two, one_at_a_time
from tests.support.placement_simulation import A, B, SimulatedService
from tests.support.simulated_jobs import SimulatedJob

TEXTS = (
    (500, '{"error":{"code":500,"message":"Jinja Exception: Conversation roles must alternate user/assistant"}}'),
    (500, "error parsing tool call: raw='{' err=unexpected end of JSON input"),
    (400, '{"error":{"code":400,"message":"request (9 tokens) exceeds the available context size (4 tokens)"}}'),
    (500, "prediction aborted, token repeat limit reached"),
    (500, "model runner has unexpectedly stopped, this may be due to resource limitations"),
    (500, "llama-server process has terminated: exit status 1"),
    (500, "a text that no version of Ollama is known to send"),
    (503, "server overloaded"),
)
ERRORS = [failure_of(status, text.encode(), "text/plain", CHAT) for status, text in TEXTS]
ERRORS.append(BackendError("the connection was lost", code="connection_lost", fault=Fault.TRANSIENT))
GOOD = "somebody whose requests are good"
LOOK = 1_000
"""The dispatcher looks at least so often, in simulated milliseconds."""
THE_CALLERS_OWN = [error for error in ERRORS if error.fault in (Fault.PERMANENT, Fault.OUTPUT)]


class Idle:
    """How long a request waits while its backend does nothing."""

    def __init__(self, service: SimulatedService, job: SimulatedJob) -> None:
        self.waited = 0
        self._service, self._job = service, job
        self._seen_at, self._was_idle = service.time.now, False
        service.on_event = self._look

    def _look(self) -> None:
        now = self._service.time.now
        if self._was_idle:
            self.waited += now - self._seen_at
        self._seen_at = now
        self._was_idle = self._job.started is None and not self._service.backends[0].in_flight


def scene(
    seed: int, bad_owners: int, good_owner: str, errors: Sequence[BackendError] = ERRORS, *, is_by_order: bool = False
) -> tuple[SimulatedService, SimulatedJob]:
    """Callers whose requests fail, each with several, and one good request among them. ``is_by_order``: from when that
    comes, no breaker is open and none opens, so that the order alone decides.
    """
    chance = random.Random(seed)
    fits, seats = chance.choice([one_at_a_time, any_two]), chance.choice([1, 2, 5])
    service = SimulatedService()
    service.add_backend(fits=fits, seats=seats, loaded=[A])
    for number in range(bad_owners):
        for _ in range(chance.randint(1, 4)):
            error, runner = chance.choice(errors), chance.choice([A, A, B])
            service.submit(runner, chance.randint(1, 3_000), owner=f"bad {number}", error=error)
        service.run(service.time.now + chance.choice([0, 100, 20_000]))
    if is_by_order:
        service.backends[0].own.breakers = Breakers(lambda: Breaker(lambda: 0.0, threshold=10**9))
    good = service.submit(A, 1_000, owner=good_owner)
    idle = Idle(service, good)
    for number in range(chance.randint(0, 4)):
        service.submit(A, 1_000, owner=f"bad {number}", error=chance.choice(errors))
    while good.ended is None:
        service.run(until=service.time.now + 1_000)
        assert service.time.now < 3_600_000, "the good request waits for ever"
    if good_owner == GOOD:
        assert idle.waited <= LOOK
    return service, good


def sent_before(service: SimulatedService, job: SimulatedJob, owner: str | None = None) -> int:
    """How many jobs of its runner, or of one owner there, were sent between this one's arrival and its turn."""
    place = service.sent.index(job)
    return sum(
        one.runner == job.runner and at >= job.arrived and owner in (None, one.line.owner)
        for one, at in zip(service.sent[:place], service.sent_at[:place], strict=True)
    )


@given(seed=st.integers(0, 2**32), bad_owners=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_another_owners_request_waits_for_one_job_more_than_the_order_alone_has_it_wait(
    seed: int, bad_owners: int
) -> None:
    with_breakers = sent_before(*scene(seed, bad_owners, GOOD))
    without = sent_before(*scene(seed, bad_owners, GOOD, is_by_order=True))
    assert with_breakers <= without + 1


@given(seed=st.integers(0, 2**32), bad_owners=st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_a_request_of_the_same_owner_waits_no_longer_either_where_the_failures_are_no_evidence(
    seed: int, bad_owners: int
) -> None:
    service, good = scene(seed, bad_owners, "bad 0", THE_CALLERS_OWN)
    twin, same = scene(seed, bad_owners, "bad 0", THE_CALLERS_OWN, is_by_order=True)
    assert all(backend.own.breakers.are_closed_for(model_of_runner(A)) for backend in service.backends)
    assert sent_before(service, good) <= sent_before(twin, same) + 1


@given(seed=st.integers(0, 2**32), bad_owners=st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_where_they_are_evidence_it_waits_for_the_open_breaker_besides_and_is_its_trial(
    seed: int, bad_owners: int
) -> None:
    """Meanwhile others go on; of its own owner's jobs, those that have failed let it go first."""
    with_breakers = sent_before(*scene(seed, bad_owners, "bad 0"), "bad 0")
    without = sent_before(*scene(seed, bad_owners, "bad 0", is_by_order=True), "bad 0")
    assert with_breakers <= without + 1


def test_a_job_that_failed_is_the_trial_only_if_it_waits_alone() -> None:
    """The breaker's rest is 30 s, and five failures open it; after that each trial is at least as far apart."""
    service = SimulatedService()
    service.add_backend(seats=1, loaded=[A])
    failed = [service.submit(A, 10, owner="one", error=ERRORS[-3]) for _ in range(5)]
    service.run(until=10_000)
    assert not service.backends[0].own.breakers.are_closed_for(model_of_runner(A))
    good = service.submit(A, 10, owner="one")
    before = len(service.sent)
    service.run()
    assert service.sent[before] is good
    assert {one.number for one in service.sent[before + 1 :]} <= {one.number for one in failed}
