"""What a run has done, in numbers."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

from corral.batch.lines import Outcome
from corral.batch.prices import Prices

_LATELY_SECONDS = 60.0


@dataclass
class Tally:
    """Counts of the whole run, also of what it did before it was interrupted."""

    total: int
    done: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """Of the parts of the run before this one."""
    causes: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        return sum(self.causes.values())

    def add(self, outcome: Outcome) -> None:
        """One more line is done."""
        self.done += 1
        self.prompt_tokens += outcome.prompt_tokens or 0
        self.completion_tokens += outcome.completion_tokens or 0
        if not outcome.is_good:
            self.causes[outcome.cause] += 1

    def facts(self) -> dict[str, Any]:
        """As a journal keeps them."""
        return asdict(self) | {"causes": dict(self.causes)}

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Tally:
        """As a journal had them."""
        return cls(**{**facts, "causes": Counter(facts["causes"])})


@dataclass(frozen=True)
class Progress:
    """How a run stands. Rates are of the last minute; None: not known."""

    total: int
    done: int
    failed: int
    lines_per_second: float
    tokens_per_second: float
    remaining_seconds: float | None
    price: float | None
    waits_for: str | None


class Rates:
    """Lines and tokens a second over the last minute, by the clock that is given to it."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()

    def progress(self, tally: Tally, now: float, prices: Prices, waits_for: str | None) -> Progress:
        """How the run stands now."""
        tokens = tally.prompt_tokens + tally.completion_tokens
        self._samples.append((now, tally.done, tokens))
        while now - self._samples[0][0] > _LATELY_SECONDS:
            self._samples.popleft()
        begun, done, before = self._samples[0]
        seconds = now - begun
        rate = (tally.done - done) / seconds if seconds > 0 else 0.0
        return Progress(
            total=tally.total,
            done=tally.done,
            failed=tally.failed,
            lines_per_second=rate,
            tokens_per_second=(tokens - before) / seconds if seconds > 0 else 0.0,
            remaining_seconds=(tally.total - tally.done) / rate if rate > 0 else None,
            price=prices.of(tally.prompt_tokens, tally.completion_tokens) if prices.is_known else None,
            waits_for=waits_for,
        )
