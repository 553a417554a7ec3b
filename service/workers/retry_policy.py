"""Whether a job is tried again after a failed attempt, and when. Pure: the decision follows from the values alone."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from service.config import RetryConfig
from service.errors import BackendError, Fault

_ELSEWHERE_MS = 1_000
"""The pause before a job is tried on another backend, when this one no longer has its model."""


class Elsewhere(Enum):
    """Where the model of a job may be, when a backend says that it does not have it."""

    NOWHERE = "nowhere"
    """No other backend has it. Also when the backend has said something else."""
    PERHAPS = "perhaps"
    """Another backend has it and takes no jobs now, or is away and was never asked."""
    SERVED = "served"
    """Another backend has it and takes its jobs."""


class Failure(NamedTuple):
    """A failed attempt, and what is known of its job."""

    error: BackendError
    failures: int
    """How many the job had before this one; likewise the crashes."""
    crashes: int
    has_caller: bool
    """Whether somebody waits for the reply."""
    is_sent: bool
    """Whether a caller was sent a byte of this attempt's reply."""
    elsewhere: Elsewhere = Elsewhere.NOWHERE


class Fail(NamedTuple):
    """The job fails."""

    code: str
    message: str
    is_worth_retrying: bool = False
    """The caller may try again, since we have not."""


class TryAgain(NamedTuple):
    """The job is queued again. ``failures`` and ``crashes`` are added to its own."""

    pause_ms: int | None
    """From now; None: it may begin at once."""
    failures: int = 0
    crashes: int = 0


def decide(failure: Failure, retry: RetryConfig, *, holds_busy: bool, chance: Callable[[], float]) -> Fail | TryAgain:
    """What becomes of the job. ``chance`` draws from 0 to 1; ``holds_busy`` says whether callers wait for a busy
    backend.
    """
    error = failure.error
    told = Fail(error.code, str(error))
    if failure.is_sent:
        # Its caller has the beginning of this attempt's answer.
        return told
    if failure.elsewhere is Elsewhere.SERVED or (failure.elsewhere is Elsewhere.PERHAPS and not failure.has_caller):
        # The job is held as for any backend that is away. A caller waits only for a backend that is there; else it
        # hears what this one said.
        return TryAgain(_ELSEWHERE_MS)
    if error.fault is Fault.BUSY and failure.has_caller and not holds_busy:
        return told._replace(is_worth_retrying=True)
    if error.fault is Fault.ABSENT:
        return TryAgain(None)
    if error.fault is Fault.BUSY:
        return TryAgain(_pause_ms(retry, 0, chance))
    if error.fault is Fault.OUTPUT:
        # Sampling is random, so what the model writes once more may be well. It is asked only once more.
        is_second = failure.crashes > 0 or failure.failures >= retry.max_retries
        return told if is_second else TryAgain(_pause_ms(retry, failure.failures, chance), 1, crashes=1)
    crashes = int(error.fault is Fault.RUNNER)
    times = failure.crashes + crashes
    if crashes and times >= retry.poison_failures:
        return Fail("poison", f"the model or its runner failed {times} times under this prompt: {error}")
    if error.fault in (Fault.PERMANENT, Fault.ENDED) or failure.failures >= retry.max_retries:
        return told
    return TryAgain(_pause_ms(retry, failure.failures, chance), 1, crashes)


def _pause_ms(retry: RetryConfig, failures: int, chance: Callable[[], float]) -> int:
    """Exponential, capped, with full jitter."""
    try:
        longest = min(retry.cap_seconds, retry.initial_seconds * retry.factor**failures)
    except OverflowError:
        # With a factor of 100 the power leaves the range of floats after 155 failures.
        longest = retry.cap_seconds
    return int(chance() * longest * 1000)
