"""The calls of ours that one backend works on, by runner and in the order in which they were sent.

A runner has fewer slots than we may send it calls (wire contract 4.1): what is beyond them waits there for those that
were sent before. Pure: times are milliseconds of the caller's clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Settled = Callable[[], bool]
"""Whether a call that was sent does no harm any more to a load that begins now: it has had a byte, carries no
``keep_alive``, or Ollama has long had it. One that arrives after the load began would rewrite with its ``keep_alive``
when its model is to go, and the load would wait for ever.
"""


def settled() -> bool:
    """Of a call that carries no ``keep_alive``."""
    return True


@dataclass(slots=True, eq=False)
class Call:
    """One call, as it stands."""

    runner: str
    """The runner that it was sent for, under its own model's name."""
    sent_at: int
    is_streamed: bool
    is_settled: Settled = settled
    unloads: bool = False
    """Its model goes when it is over."""
    heard_at: int | None = None
    """When a byte of its reply came last; None: nothing has."""
    late_at: int | None = None
    """When the limit on its first byte was over and it went on, as a whole reply does."""
    kept_until: float = -math.inf
    """Until when calls that are over kept this one from its answer, and all those behind it."""
    line: list[Call] = field(default_factory=list, repr=False)
    """All that are under way to the same runner, the first sent first."""

    def free_since(self, now: int, stall_ms: float) -> float | None:
        """Since when no earlier call that is seen to be at work, or may be, keeps this one from its answer; None while
        one does.

        One is seen to be at work when a byte of it has come within ``stall_ms``. A whole reply is silent until it is
        done, and may be at work until it is late.
        """
        since = self.kept_until
        for other in self.line:
            if other is self:
                break
            since = max(since, other.kept_until, other.at_work_until(now, stall_ms))
        return None if since > now else since

    def at_work_until(self, now: int, stall_ms: float) -> float:
        """Until when it is taken to be at work, as things stand: later than now, or at what time that was over."""
        if self.heard_at is not None:
            return self.heard_at + stall_ms
        if self.is_streamed:
            return -math.inf
        return now + 1 if self.late_at is None else self.late_at


class Calls:
    """Those that are under way."""

    def __init__(self) -> None:
        self._lines: dict[str, list[Call]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Call]:
        return (call for line in self._lines.values() for call in line)

    def begin(self, call: Call, runner: str) -> None:
        """A call is sent to this runner, under the name that it has there."""
        call.line = self._lines.setdefault(runner, [])
        call.line.append(call)

    def end(self, call: Call, now: int) -> None:
        """It is over, if it ever began."""
        line = call.line
        if call not in line:
            return
        place = line.index(call)
        del line[place]
        if place < len(line):
            behind = line[place]
            behind.kept_until = max(behind.kept_until, call.kept_until, min(now, call.at_work_until(now, math.inf)))
        if not line:
            self._lines = {runner: one for runner, one in self._lines.items() if one}
