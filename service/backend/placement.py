"""Which runner one backend serves next: stay with what is loaded, swap when nothing for it waits or another is overdue.

Before a swap the victims are drained: requests that keep one model busy while another waits to load hang Ollama's
scheduler for good (wire contract 4.3). Models that were once seen loaded together are known to fit together; between
them nothing is drained and nothing is a swap. Pure: it is told what happens and when (milliseconds), and asked what to
do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from service.job import model_of_runner

_REMEMBERED_SETS = 64
_UNKNOWN = ""
"""A model that was loaded when we came: with which options nobody knows; the first runner to ask is taken for it."""


@dataclass(slots=True)
class Residence:
    """A runner's stay on this backend."""

    asked_at: int
    """When its first job was sent."""
    loaded_at: int | None = None

    @property
    def load_ms(self) -> int:
        return (self.loaded_at or self.asked_at) - self.asked_at


@dataclass(slots=True)
class Swap:
    """A runner that waits for the others to drain."""

    runner: str
    is_overdue: bool
    """False: begun only because nothing waited for what is loaded."""


def is_remote(runner: str) -> bool:
    """Whether Ollama forwards this model to its cloud: it takes no memory and no runner here (wire contract 3.5)."""
    tag = model_of_runner(runner).rpartition(":")[2]
    return tag == "cloud" or tag.endswith("-cloud")


@dataclass(slots=True)
class Placement:
    """What is loaded, loading and running on one backend."""

    max_swap_wait_ms: float
    in_flight: dict[str, int] = field(default_factory=dict)
    loaded: dict[str, str] = field(default_factory=dict)
    """By model, the runner that it was loaded for."""
    residences: dict[str, Residence] = field(default_factory=dict)
    together: list[frozenset[str]] = field(default_factory=list)
    """Sets of models that were seen loaded at once; none is part of another."""
    swap: Swap | None = None
    swaps: int = 0
    """How many loads this process has caused."""

    # What happens

    def sent(self, runner: str, now: int) -> None:
        """A job of this runner has a seat."""
        self.in_flight[runner] = self.in_flight.get(runner, 0) + 1
        if is_remote(runner):
            return
        if self.swap is not None and self.swap.runner == runner:
            self.swap = None
        if not self.is_loaded(runner) and runner not in self.residences:
            self.residences[runner] = Residence(now)
            self.swaps += 1

    def ended(self, runner: str) -> None:
        """A job of this runner has given its seat back."""
        left = self.in_flight[runner] - 1
        if left:
            self.in_flight[runner] = left
        else:
            del self.in_flight[runner]
            if runner in self.residences and self.residences[runner].loaded_at is None:
                # It ended without a byte: whether it was loaded is not known, so the next job asks again.
                del self.residences[runner]

    def answered(self, runner: str, now: int) -> bool:
        """A job of this runner has got its first byte; whether that is news: then ``/api/ps`` is worth asking."""
        if is_remote(runner):
            return False
        residence = self.residences.setdefault(runner, Residence(now))
        if residence.loaded_at is not None and self.is_loaded(runner):
            return False
        residence.loaded_at = now
        # Whatever it pushed out is gone until /api/ps says otherwise, save what is at work.
        busy = {model_of_runner(one) for one in self.in_flight}
        self.loaded = {model: one for model, one in self.loaded.items() if model in busy}
        self.loaded[model_of_runner(runner)] = runner
        self._forget_others()
        return True

    def listed(self, models: Collection[str], now: int) -> None:
        """What ``/api/ps`` says is loaded."""
        present = frozenset(models)
        loading = {model_of_runner(runner): runner for runner in self.residences if runner in self.in_flight}
        for model in present:
            runner = loading.get(model)
            residence = self.residences.get(runner) if runner is not None else None
            if runner is not None and residence is not None and residence.loaded_at is None:
                residence.loaded_at = now
                self.loaded[model] = runner
            self.loaded.setdefault(model, _UNKNOWN)
        busy = {model_of_runner(runner) for runner in self.in_flight if self.is_loaded(runner)}
        self.loaded = {model: runner for model, runner in self.loaded.items() if model in present or model in busy}
        self._forget_others()
        if len(present) > 1 and not any(present <= known for known in self.together):
            smaller = [known for known in self.together if known <= present]
            self.together = [*(known for known in self.together if known not in smaller), present][-_REMEMBERED_SETS:]

    # What to do

    def is_loaded(self, runner: str) -> bool:
        """Whether a job of this runner would be answered without a load."""
        return self.loaded.get(model_of_runner(runner)) in (runner, _UNKNOWN)

    def is_loading(self, runner: str) -> bool:
        """Whether its first job is on its way and nothing has come back yet."""
        residence = self.residences.get(runner)
        return residence is not None and residence.loaded_at is None and runner in self.in_flight

    def choose(
        self, waiting: Mapping[str, int], now: int, *, elsewhere: Collection[str] = (), may_load: bool = True
    ) -> str | None:
        """Whose job goes next, of the runners that ``waiting`` names with the time since which their oldest is ready.

        None: nobody's now. ``elsewhere`` are runners that another backend has or loads; without ``may_load`` only what
        is loaded here is served.
        """
        self._reconsider_swap(waiting, now)
        if self.swap is not None:
            return self.swap.runner if may_load and not self._in_the_way_of(self.swap.runner) else None
        free = [runner for runner in waiting if self._goes_at_once(runner)]
        if not may_load:
            return _oldest(free, waiting)
        overdue = [
            runner
            for runner in waiting
            if runner not in free
            and runner not in elsewhere
            and not self.is_loading(runner)
            and now - waiting[runner] >= self.max_swap_wait_ms
        ]
        if overdue and self._has_worked_enough(now):
            return self._begin_swap(_oldest(overdue, waiting), is_overdue=True)
        if free:
            return _oldest(free, waiting)
        others = [runner for runner in waiting if not self.is_loading(runner)]
        return self._begin_swap(_oldest([r for r in others if r not in elsewhere] or others, waiting), is_overdue=False)

    def next_look(self, waiting: Mapping[str, int], now: int) -> int | None:
        """When a runner that waits will be overdue, or the present residence long enough, if nothing happens before."""
        times = [since + int(self.max_swap_wait_ms) for runner, since in waiting.items() if not self.is_loaded(runner)]
        if not times:
            return None
        enough = [one.loaded_at + one.load_ms for one in self.residences.values() if one.loaded_at is not None]
        return (
            max(now + 1, min(times), *(time for time in enough if time > now)) if enough else max(now + 1, min(times))
        )

    # Within

    def _goes_at_once(self, runner: str) -> bool:
        """Loaded, and nothing at work that it does not fit with; or known to fit with all that is at work."""
        if is_remote(runner):
            return True
        if self.is_loading(runner) or self._in_the_way_of(runner):
            return False
        return self.is_loaded(runner) or self._fits_with_loaded(runner)

    def _in_the_way_of(self, runner: str) -> list[str]:
        """The runners at work that must be drained before a job of ``runner`` is sent."""
        busy = [one for one in self.in_flight if one != runner and not is_remote(one)]
        if not busy:
            return []
        models = {model_of_runner(one) for one in (*busy, runner)}
        if len(models) == len(busy) + 1 and self._fit(models):
            return []
        return busy

    def _fits_with_loaded(self, runner: str) -> bool:
        models = {*self.loaded, model_of_runner(runner)}
        return len(models) == len(self.loaded) + 1 and len(models) > 1 and self._fit(models)

    def _fit(self, models: Iterable[str]) -> bool:
        wanted = frozenset(models)
        return any(wanted <= known for known in self.together)

    def _has_worked_enough(self, now: int) -> bool:
        """Whether what is loaded has worked as long as its load took: else four overdue models swap for ever."""
        return all(
            one.loaded_at is not None and now - one.loaded_at >= one.load_ms
            for runner, one in self.residences.items()
            if runner in self.in_flight or self.is_loaded(runner)
        )

    def _begin_swap(self, runner: str | None, *, is_overdue: bool) -> str | None:
        if runner is None:
            return None
        if not self._in_the_way_of(runner):
            return runner
        self.swap = Swap(runner, is_overdue)
        return None

    def _reconsider_swap(self, waiting: Mapping[str, int], now: int) -> None:
        """A drain is given up when its reason is gone: nobody waits for it, or somebody came for what is loaded."""
        swap = self.swap
        if swap is None:
            return
        if swap.runner not in waiting:
            self.swap = None
        elif not swap.is_overdue:
            if now - waiting[swap.runner] >= self.max_swap_wait_ms:
                swap.is_overdue = True
            elif any(self.is_loaded(runner) for runner in waiting):
                self.swap = None

    def _forget_others(self) -> None:
        self.residences = {
            runner: one
            for runner, one in self.residences.items()
            if runner in self.in_flight or self.loaded.get(model_of_runner(runner)) == runner
        }


def _oldest(runners: Collection[str], waiting: Mapping[str, int]) -> str | None:
    return min(runners, key=lambda runner: waiting[runner], default=None)
