"""What becomes of a job after a failed attempt: what holds of every decision."""

from __future__ import annotations

from service.config import RetryConfig
from service.errors import BackendError, Fault
from service.workers.retry_policy import Failure, TryAgain, decide


def test_a_pause_that_grows_beyond_all_numbers_stays_at_its_cap() -> None:
    retry = RetryConfig(initial_seconds=1, factor=100, cap_seconds=16, max_retries=1000)
    failure = Failure(BackendError("something", code="backend_error", fault=Fault.TRANSIENT), 200, 0, False, False)
    assert decide(failure, retry, holds_busy=True, chance=lambda: 0.5) == TryAgain(8_000, failures=1)
