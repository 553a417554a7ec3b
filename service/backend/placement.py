"""Which runner one backend serves next: what is loaded, until nothing waits for it or another runner is overdue.

Before a swap the victims are drained: requests that keep one model busy while another waits to load hang Ollama's
scheduler for good (wire contract 4.3). Runners that were once seen loaded together are known to fit together; between
them nothing is drained and nothing is a swap. Models of which nothing is known are tried: their load is sent, and sends
to what is loaded are held meanwhile (load_hold.py). Models of the same weights share a runner (wire contract 4.4),
which has the name of one of them here. Pure: it is told what happens and when (milliseconds), and asked what to do.
Nothing that it decides is kept: a drain lasts as long as its reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from service.backend.fitting import FittingSets
from service.backend.load_hold import Holds, LoadHold
from service.backend.models import Listed
from service.backend.residence import Residence, Swap
from service.backend.turns import Turns
from service.job import model_of_runner

UNKNOWN = ""
"""The runner of a model that was loaded when we came. Its options are not known: the first to ask is taken for it."""
_LINGER_SHARE = 0.05
_LONGEST_LINGER_MS = 100
"""How long a swap waits for more jobs of those who were answered just now: a share of a load's time, and at most so
long. They often want the same model again, and a needless load costs more.
"""
_LEAST_PATIENCE_MS = 10_000
"""A load beside working runners may take at least this long before we doubt that they fit together."""


def is_remote(runner: str, told: Collection[str] = ()) -> bool:
    """Whether Ollama forwards this model to its cloud, by its name or as its server has ``told`` of these models: it
    takes no memory and no runner here (wire contract 3.5).
    """
    model = model_of_runner(runner)
    return model in told or _is_named_so(model)


@lru_cache(maxsize=4096)
def _is_named_so(model: str) -> bool:
    tag = model.rpartition(":")[2]
    return tag == "cloud" or tag.endswith("-cloud")


@dataclass(slots=True)
class Placement:
    """What is loaded, loading and running on one backend."""

    max_swap_wait_ms: float
    in_flight: dict[str, int] = field(default_factory=dict)
    """How many jobs run, by the runner that they were sent for, under its own model's name."""
    loaded: dict[str, str] = field(default_factory=dict)
    """By model, the runner that it was loaded for."""
    residences: dict[str, Residence] = field(default_factory=dict)
    fitting: FittingSets = field(default_factory=FittingSets)
    """What is known to fit together here."""
    swap: Swap | None = None
    """The one that was due when :meth:`choose` was last asked."""
    swaps: int = 0
    """How many loads this process has caused."""
    installed: frozenset[str] | None = None
    """The models that could be loaded here; None until that is known. A job for any other takes no room: Ollama only
    has to say that it does not have it.
    """
    remote: frozenset[str] = frozenset()
    """The models that Ollama forwards to its cloud, as it tells; their names may be any."""
    _names: Mapping[str, str] = field(default_factory=dict)
    """By model that shares its weights with others, the model whose name their runner has here."""
    at_work: dict[str, int] = field(default_factory=dict)
    """How many jobs run, by the names that the runners have here."""
    _doubtful: set[str] = field(default_factory=set)
    """Loaded models that a load may have pushed out: ``/api/ps`` will tell."""
    _contexts: Mapping[str, int] = field(default_factory=dict)
    """By model that ``/api/ps`` lists, its context length there."""
    turns: Turns = field(default_factory=Turns)
    used_at: int = 0
    """When a job was last sent or ended."""
    _ended_at: int | None = None
    holds: Holds = field(init=False)
    """The load for which sends are held."""

    def __post_init__(self) -> None:
        self.holds = Holds(self.fitting)

    # What happens

    def know_names(self, names: Mapping[str, str]) -> None:
        """Which models share their weights: by model, the one whose name their runner has from now on."""
        if names == self._names:
            return
        self._names = names
        self._doubtful = {model_of_runner(self.own(model)) for model in self._doubtful}
        work: dict[str, int] = {}
        for runner, jobs in self.in_flight.items():
            work[self.own(runner)] = work.get(self.own(runner), 0) + jobs
        self.at_work = work
        residences = sorted(self.residences.items(), key=lambda item: item[1].loaded_at is not None)
        self.residences = {self.own(runner): one for runner, one in residences}
        self.loaded = {
            model_of_runner(self.own(model)): self.own(runner) if runner else runner
            for model, runner in self.loaded.items()
        }
        self.fitting.rename(self.own)
        self.holds.rename(self.own)
        self._forget_others()

    def own(self, runner: str) -> str:
        """The runner under the name that it has here."""
        if not self._names:
            return runner
        model, space, options = runner.partition(" ")
        return f"{self._names.get(model, model)}{space}{options}"

    def sent(self, runner: str, now: int) -> None:
        """A job of this runner has a seat."""
        self.in_flight[runner] = self.in_flight.get(runner, 0) + 1
        self.turns.note(runner, now)
        asked = runner
        if self._names:
            runner = self.own(runner)
            self.turns.note(runner, now)
        is_loaded = self.is_loaded(runner)
        self.at_work[runner] = self.at_work.get(runner, 0) + 1
        if self.takes_no_room(runner):
            return
        self.used_at = now
        if self.swap is not None and self.swap.runner == runner:
            self.swap = None
        if not is_loaded and runner not in self.residences:
            self._hold_others_for(asked, now)
            self.residences[runner] = Residence(now)
            self.swaps += 1

    def ended(self, runner: str, now: int | None = None) -> None:
        """A job of this runner has given its seat back."""
        _take_one(self.in_flight, runner)
        asked, runner = runner, self.own(runner)
        residence = self.residences.get(runner)
        if now is not None:
            # Whether its model takes room may have changed meanwhile.
            self.holds.ended(asked, now)
        if now is not None and not self.takes_no_room(runner):
            self.used_at = self._ended_at = now
        if not _take_one(self.at_work, runner):
            return
        if residence is not None and residence.loaded_at is None:
            # The job ended without a byte. Whether the runner was loaded is not known: the next job is its first.
            del self.residences[runner]

    def answered(self, runner: str, now: int) -> bool:
        """A job of this runner has got its first byte. Returns whether that is news and ``/api/ps`` is worth asking."""
        self.holds.spoke(runner)
        runner = self.own(runner)
        if self.takes_no_room(runner):
            return False
        residence = self.residences.setdefault(runner, Residence(now))
        model = model_of_runner(runner)
        if residence.has_answered and self.loaded.get(model) == runner and model not in self._doubtful:
            return False
        residence.has_answered = True
        if residence.loaded_at is None:
            residence.loaded_at = now
        self.loaded[model] = runner
        self._doubtful.discard(model)
        if not self.fitting.fit(self.loaded.values()):
            # The load may have pushed out whatever is not at work: that is doubtful until /api/ps tells.
            busy = {model_of_runner(one) for one in self.at_work}
            self._doubtful |= {one for one in self.loaded if one != model and one not in busy}
        self._forget_others()
        return True

    def listed(self, models: Iterable[Listed], now: int, asked_at: int | None = None) -> None:
        """What ``/api/ps`` says is loaded; it was asked at ``asked_at``, or just now."""
        listed = {self.own(one.model): one for one in models}
        present = listed.keys()
        self._contexts = {model: one.context_length for model, one in listed.items()}
        self._doubtful.clear()
        for runner in self.at_work:
            model = model_of_runner(runner)
            # A model that was loaded before with other options may be listed for those.
            if self.is_loading(runner) and model in present and model not in self.loaded:
                self.residences[runner].loaded_at = now
                self.loaded[model] = runner
        busy = {model_of_runner(runner) for runner in self.at_work if self.is_loaded(runner)}
        self.loaded = {model: one for model, one in self.loaded.items() if model in present or model in busy}
        for model in present:
            self.loaded.setdefault(model, UNKNOWN)
        self._forget_others()
        self.holds.looked(
            {model: one.stays_until for model, one in listed.items()},
            now,
            now if asked_at is None else asked_at,
            self.max_swap_wait_ms,
            is_anything_sent=bool(self.busy()),
            is_loading=any(map(self.is_loading, self.at_work)),
        )
        self.fitting.remember(frozenset(self._certain(present)))

    # What to do

    def is_loaded(self, runner: str) -> bool:
        """Whether a job of this runner would be answered without a load."""
        runner = self.own(runner)
        model = model_of_runner(runner)
        return self.loaded.get(model) in (runner, UNKNOWN) and model not in self._doubtful

    def is_loading(self, runner: str) -> bool:
        """Whether the first job of this runner is on its way and nothing has come back yet."""
        runner = self.own(runner)
        residence = self.residences.get(runner)
        return residence is not None and residence.loaded_at is None and runner in self.at_work

    def has_load_beside(self, runner: str) -> bool:
        """Whether another runner is on its way to be loaded while this one is."""
        own, hold = self.own(runner), self.holds.hold
        if self.takes_no_room(own):
            return False
        if hold is not None and hold.asked != runner:
            return True
        return self.is_loaded(runner) and any(one != own and self.is_loading(one) for one in self.at_work)

    def would_try(self, runner: str) -> bool:
        """Whether a job of this runner, sent now, would be a trial of models of which nothing is known."""
        own = self.own(runner)
        if self.takes_no_room(own) or self.is_loaded(own) or own in self.residences:
            return False
        return self.in_the_way_of(own) and not self.has_fitted(own)

    def has(self, runner: str) -> bool:
        """Whether this runner is loaded, is being loaded, or is the one for which the others are drained."""
        runner = self.own(runner)
        return runner in self.residences or (self.swap is not None and self.swap.runner == runner)

    def first(self, runners: Collection[str], waiting: Mapping[str, int]) -> str:
        """Of runners that may all go now, the one whose job goes first."""
        return min(runners, key=self.turns.by_seats(self.in_flight, waiting))

    def next_look(self, waiting: Mapping[str, int], now: int) -> int | None:
        """When :meth:`choose` may answer otherwise although nothing has happened; None: never."""
        times = [since + self.max_swap_wait_ms for since in waiting.values()]
        for runner, one in self.residences.items():
            if one.loaded_at is not None:
                times.append(one.loaded_at + one.load_ms)
            elif runner in self.at_work:
                times.append(one.asked_at + self._patience_ms)
        times += (self.used_at + self.longest_load_ms, self.linger_until, self.holds.next_trial_at)
        return min((int(time) for time in times if time > now), default=None) if waiting else None

    # Within

    def by_own(self, waiting: Mapping[str, int]) -> dict[str, int]:
        """Since when the oldest job waits for each runner under the name that it has here."""
        since: dict[str, int] = {}
        if not self._names:
            return dict(waiting)
        for runner, time in waiting.items():
            own = self.own(runner)
            since[own] = min(time, since.get(own, time))
        return since

    def takes_no_room(self, runner: str) -> bool:
        """Whether nothing is loaded here for its jobs, and so nothing need make way for them."""
        if is_remote(runner, self.remote):
            return True
        return self.installed is not None and model_of_runner(runner) not in self.installed

    def _hold_others_for(self, asked: str, now: int) -> None:
        """The load of this runner begins, perhaps beside others that are at work and may have to make way."""
        runner = self.own(asked)
        if not self.in_the_way_of(runner):
            return
        others = self.busy() - {runner}
        hold = LoadHold(
            asked=asked,
            model=model_of_runner(runner),
            beside=frozenset(self.loaded),
            busy=frozenset(map(model_of_runner, others)),
            is_trial=not self.has_fitted(runner),
            begun_at=now,
            before={one: jobs for one, jobs in self.in_flight.items() if self.own(one) in others},
        )
        self.holds.begin(hold, self.max_swap_wait_ms)

    def goes_at_once(self, runner: str, *, may_load: bool = False) -> bool:
        """Whether a job of this runner may be sent now: the runner is loaded, or known to fit with all that is loaded;
        and it is known to fit with all that is at work.
        """
        if self.takes_no_room(runner):
            return True
        if self.holds.hold is not None or self.is_loading(runner) or self.in_the_way_of(runner):
            return False
        return self.is_loaded(runner) or (may_load and bool(self.loaded) and self.has_room_for(runner))

    def in_the_way_of(self, runner: str) -> bool:
        """Whether runners are at work that must be drained before a job of this one is sent."""
        busy = self.busy()
        busy.discard(runner)
        return bool(busy) and not self.fitting.fit(set(map(self.as_known, {*busy, runner})))

    def has_room_for(self, runner: str) -> bool:
        """Whether its load pushes nothing out, as far as is known."""
        return self.fitting.fit(self._all_with(runner))

    def has_fitted(self, runner: str) -> bool:
        """Whether it has been loaded beside all that is there, perhaps long ago."""
        return self.fitting.have_fitted(self._all_with(runner))

    def _all_with(self, runner: str) -> set[str]:
        """This runner and all that are loaded or at work; those that were found loaded have their model's name."""
        resident = {one or model for model, one in self.loaded.items() if model not in self._doubtful}
        return set(map(self.as_known, resident | self.busy() | {runner}))

    def as_known(self, runner: str) -> str:
        """The runner under the name by which it is known what fits with it: a context that is asked for explicitly
        makes no other runner of a model that is loaded with the same.
        """
        model, space, options = runner.partition(" ")
        is_plain = self.loaded.get(model, model) in (UNKNOWN, model)
        return model if space and is_plain and options == f'{{"num_ctx":{self._contexts.get(model)}}}' else runner

    def busy(self) -> set[str]:
        return {runner for runner in self.at_work if not self.takes_no_room(runner)}

    def _certain(self, present: Collection[str]) -> Iterator[str]:
        """The runners of the listed models, where it is certain which they are."""
        loading = {model_of_runner(runner) for runner in self.at_work if self.is_loading(runner)}
        for model in present:
            runner = self.loaded.get(model, UNKNOWN)
            residence = self.residences.get(runner)
            if model in loading:
                continue
            if runner == UNKNOWN:
                # It was found so: its line stands for requests that name no option.
                yield model
            elif residence is not None and residence.has_answered:
                yield self.as_known(runner)

    def doubt_slow_loads(self, now: int) -> None:
        """A load that takes very long beside others may wait for them: from now on they are drained for it."""
        for runner, one in self.residences.items():
            if self.is_loading(runner) and now - one.asked_at >= self._patience_ms:
                busy = {other for other in self.at_work if other != runner}
                self.fitting.doubt(runner, busy)

    @property
    def _patience_ms(self) -> float:
        return max(self.max_swap_wait_ms, _LEAST_PATIENCE_MS)

    @property
    def linger_until(self) -> int:
        if self._ended_at is None:
            return 0
        return self._ended_at + int(min(_LINGER_SHARE * self.longest_load_ms, _LONGEST_LINGER_MS))

    @property
    def longest_load_ms(self) -> int:
        return max((one.load_ms for one in self.residences.values()), default=0)

    def _forget_others(self) -> None:
        self.residences = {
            runner: one
            for runner, one in self.residences.items()
            if runner in self.at_work or self.loaded.get(model_of_runner(runner)) == runner
        }
        self._doubtful &= self.loaded.keys()


def _take_one(jobs: dict[str, int], runner: str) -> bool:
    """Count one job fewer. Returns whether it was the last."""
    left = jobs[runner] - 1
    if left:
        jobs[runner] = left
        return False
    del jobs[runner]
    return True
