"""A load for which sends are held: what is loaded gets nothing new until the load has come to an end.

Ollama is sent the job of a new model while others run. With room for it, it loads beside them at once; without, its
loop waits for one of them to end, as a drain would. That is safe only while nothing new arrives at what is loaded: it
would take Ollama's fast path, and the loop would wait for ever (wire contract 4.3). So the hold is a state of the
placement and not of its job, whose end does not end that wait. Pure: times are milliseconds of the caller's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from enum import Enum, auto

from service.backend.calls import Call, Calls
from service.backend.fitting import FittingSets
from service.job import model_of_runner

_LONGEST_PAUSE_MS = 86_400_000
_PAUSE_TIMES = 10
_ON_ITS_WAY_MS = 120_000
"""So long after one model went, another that comes may have been what it made way for: a load takes its time."""


class Verdict(Enum):
    """How a hold has ended."""

    LOADED = auto()
    """The new model is there."""
    MADE_WAY = auto()
    """One of the others is gone, and the new model will be loaded in its place."""
    NOTHING = auto()
    """Nothing was learnt of it."""


@dataclass(slots=True)
class LoadHold:
    """One load and those beside which it is made. Models go by the names that their runners have here."""

    asked: str
    """The runner that is loaded, under its own model's name."""
    model: str
    beside: frozenset[str]
    """The models that were loaded when it began."""
    busy: frozenset[str]
    """Those of them that were at work."""
    is_trial: bool
    """Nothing is known of these models together; else they have fitted before."""
    begun_at: int
    before: dict[str, int]
    """The calls that still run of those that were sent to what is loaded, by the runner that each was sent for."""
    is_sent: bool = False
    """Its request is on its way to Ollama."""
    is_clear: bool = True
    """Whoever is gone when it is there has made way for it: nothing else is known that could have sent it away."""
    seen: frozenset[str] = frozenset()
    """The models that were listed when it began: their lines say nothing of this load."""
    freed_at: int | None = None
    """When the last of them ended."""
    has_ended: bool = False
    """Its own job is over, and had not a byte."""
    has_room: bool = False
    """Nobody had to make way for it, as a look has shown."""

    def ended_before(self, asked: str, now: int) -> None:
        """A call for this runner is over."""
        left = self.before.get(asked, 0)
        if left > 1:
            self.before[asked] = left - 1
        elif left and self.before.pop(asked) and not self.before:
            self.freed_at = now

    def judge(self, present: Set[str], asked_at: int, *, is_anything_sent: bool) -> Verdict | None:
        """What a look at ``/api/ps`` that was begun at ``asked_at`` says; None: it goes on."""
        if self.has_ended and not is_anything_sent and not self.before:
            self.freed_at = self.freed_at or asked_at
        if self.freed_at is None or asked_at < self.freed_at:
            return None
        if self.model in present and self.model not in self.beside | self.seen:
            return Verdict.LOADED
        if not self.beside <= present:
            return Verdict.MADE_WAY
        return Verdict.NOTHING if self.has_ended and not is_anything_sent else None


class TrialPauses:
    """When a backend may be tried again with models of which nothing is known."""

    __slots__ = ("_failures", "until")

    def __init__(self) -> None:
        self.until = 0
        self._failures = 0

    def begun(self, now: int, swap_wait_ms: float) -> None:
        """A trial begins: it counts as the swap that somebody forces."""
        self.until = max(self.until, now + int(swap_wait_ms))

    def found_no_room(self, now: int, swap_wait_ms: float) -> None:
        """It has only cost time: the next comes much later, and each time twice as much."""
        pause_ms = min(_LONGEST_PAUSE_MS, _PAUSE_TIMES * swap_wait_ms * 2**self._failures)
        self._failures = min(self._failures + 1, 32)
        self.until = max(self.until, now + int(pause_ms))

    def found_room(self) -> None:
        """There is room here for several models."""
        self._failures = 0
        self.until = 0


class Holds:
    """The load for which sends are held, if there is one, and what such loads teach."""

    def __init__(self, fitting: FittingSets) -> None:
        self._fitting = fitting
        self._pauses = TrialPauses()
        self.hold: LoadHold | None = None
        self._unjudged: LoadHold | None = None
        """Its first byte has come; the next look says beside whom."""
        self.calls = Calls()
        """Those of ours that are under way here."""
        self._has_left = False
        """A call has ended since the last look after which its model is unloaded."""
        self._last_look: Mapping[str, int] = {}
        """The models that were listed last, and until when they stay."""
        self._stays: dict[str, int] = {}
        """Until when each model was to stay that was listed since the present load began."""
        self._gone: dict[str, int] = {}
        """Models that went before their time, and when that was seen: another may be on its way into their place."""

    # The calls

    def call_begins(self, call: Call, runner: str) -> None:
        """A call is sent to this runner, under the name that it has here."""
        self.calls.begin(call, runner)
        if self.hold is not None and self.hold.asked == call.runner:
            self.hold.is_sent = True

    def call_ends(self, call: Call, now: int) -> None:
        """It is over, if it ever began."""
        self.calls.end(call, now)
        self._has_left = self._has_left or call.unloads

    def are_settled(self, jobs: int) -> bool:
        """Whether none of the jobs that have seats here can reach Ollama, or do harm there, behind a load."""
        return len(self.calls) >= jobs and all(call.is_settled() for call in self.calls)

    @property
    def _is_any_leaving(self) -> bool:
        return any(call.unloads for call in self.calls)

    # The hold

    def may_try(self, models: Set[str], now: int) -> bool:
        """Whether models of which nothing is known may be tried together now."""
        return self.hold is None and now >= self._pauses.until and self._fitting.may_be_tried(models, now)

    @property
    def next_trial_at(self) -> int:
        """Before that nothing unknown is tried."""
        return self._pauses.until

    def begin(self, hold: LoadHold, swap_wait_ms: float) -> None:
        """A load is sent beside others that are at work."""
        self.hold = hold
        hold.seen = frozenset(self._last_look)
        hold.is_clear = not self._is_any_leaving
        if hold.is_trial:
            self._pauses.begun(hold.begun_at, swap_wait_ms)

    def ended(self, asked: str, now: int) -> None:
        """A job of this runner has given its seat back."""
        hold = self.hold
        if hold is None:
            return
        if asked != hold.asked:
            hold.ended_before(asked, now)
        elif hold.is_sent:
            hold.has_ended = True
        else:
            # Nothing of it ever came to Ollama.
            self.hold = None

    def spoke(self, asked: str) -> None:
        """A job of this runner has had its first byte: what it waited for has been."""
        if self.hold is not None and self.hold.asked == asked:
            self.hold, self._unjudged = None, self.hold

    def timed_out(self, asked: str, now: int) -> bool:
        """The first byte of a job of this runner did not come in time. Returns whether that has ended a hold."""
        hold = self.hold
        if hold is None or hold.asked != asked:
            return False
        self.hold = None
        self._fitting.leave_alone(hold.beside | {hold.model}, now)
        return True

    def looked(
        self,
        listed: Mapping[str, int],
        now: int,
        asked_at: int,
        swap_wait_ms: float,
        *,
        is_anything_sent: bool,
        is_loading: bool,
    ) -> None:
        """``/api/ps`` lists these models, each with the time until which it stays; it was asked at ``asked_at``.

        ``is_loading``: a load of ours is under way.
        """
        self._learn_who_was_driven_out(listed, now, is_loading=is_loading)
        if self.hold is None and self._unjudged is None:
            self._stays = {}
        self._stays |= listed
        present = listed.keys()
        judged, self._unjudged = self._unjudged, None
        hold = self.hold
        if hold is not None:
            verdict = hold.judge(present, asked_at, is_anything_sent=is_anything_sent)
            if verdict is Verdict.NOTHING:
                self._fitting.leave_alone(hold.beside | {hold.model}, now)
            if verdict is not None:
                self.hold = None
                judged = hold if verdict is not Verdict.NOTHING else judged
        if judged is not None:
            self._learn_from(judged, present, now, swap_wait_ms)

    def _learn_from(self, judged: LoadHold, present: Set[str], now: int, swap_wait_ms: float) -> None:
        """A load was made beside these: either all are there, or one has made way."""
        has_room = judged.has_room = judged.busy <= present
        gone = judged.beside - present
        if gone and not judged.is_clear:
            self._fitting.leave_alone(judged.beside | {judged.model}, now)
        elif any(self._stays.get(model, now + 1) > now for model in gone):
            self._fitting.refuse(judged.beside | {judged.model}, now)
        if judged.is_trial and has_room:
            self._pauses.found_room()
        elif judged.is_trial:
            self._pauses.found_no_room(now, swap_wait_ms)

    def server_changed(self) -> None:
        """The backend was away: what was listed before it says nothing of what comes."""
        self._last_look, self._gone, self._unjudged = {}, {}, None
        if self.hold is not None:
            # Its loop may still be there, and wait; but what is gone may be so for another reason.
            self.hold.is_clear = False

    def rename(self, own: Callable[[str], str]) -> None:
        """From now on the runners have other names here. A hold goes on: its job is with Ollama, whatever its name."""
        for hold in (self.hold, self._unjudged):
            if hold is not None:
                hold.model = model_of_runner(own(hold.asked))
                hold.beside, hold.seen = frozenset(map(own, hold.beside)), frozenset(map(own, hold.seen))
                hold.busy = frozenset(map(own, hold.busy))
        self._stays = {own(model): until for model, until in self._stays.items()}
        self._last_look = {own(model): until for model, until in self._last_look.items()}
        self._gone = {own(model): at for model, at in self._gone.items()}

    def _learn_who_was_driven_out(self, listed: Mapping[str, int], now: int, *, is_loading: bool) -> None:
        """A model that went before its time, when another came, made room for it."""
        before, self._last_look = self._last_look, dict(listed)
        came = listed.keys() - before.keys()
        self._gone = {
            model: at for model, at in self._gone.items() if now - at < _ON_ITS_WAY_MS and model not in listed
        }
        self._gone |= {model: now for model, until in before.items() if until > now and model not in listed}
        # While something loads it is not known which of two loads the room was made for.
        is_clear = not self._is_any_leaving and not self._has_left
        self._has_left = False
        if not is_clear:
            self._gone.clear()
        if came and self._gone and not is_loading:
            if len(came) == 1:
                stayed = {model for model, until in before.items() if until > now}
                self._fitting.refuse(stayed | came | self._gone.keys(), now)
            self._gone.clear()
