"""Since when each owner waits for each runner: since its last turn there, or since its first job came."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from service.job import Line

MOST_UNLOADED = 8
"""Of the runners that are loaded nowhere, so many of each owner are in the order at once: those that it has waited for
longest.
"""
_NOTHING: Mapping[str, int] = {}


class Waits:
    """Who waits for what, by model, runner and owner. Whoever has waited longest stands first in each."""

    def __init__(self) -> None:
        self._models: dict[str, dict[str, dict[str, int]]] = {}
        self._owners: dict[str, dict[str, int]] = {}
        self.wide: set[str] = set()
        """The owners that wait for more runners than may be in the order if they are not loaded."""

    # What happens

    def begin(self, line: Line, now: int) -> None:
        """The owner of this line waits for its runner; if it does already, nothing changes."""
        owners = self._models.setdefault(line.model, {}).setdefault(line.runner, {})
        if line.owner not in owners:
            owners[line.owner] = now
            own = self._owners.setdefault(line.owner, {})
            own[line.runner] = now
            if len(own) > MOST_UNLOADED:
                self.wide.add(line.owner)

    def turn(self, line: Line, now: int) -> None:
        """The owner of this line was given a turn: if it still waits for the runner, it does so from now on."""
        owners = self._models.get(line.model, {}).get(line.runner)
        if owners is not None and owners.pop(line.owner, None) is not None:
            owners[line.owner] = now
            own = self._owners[line.owner]
            del own[line.runner]
            own[line.runner] = now

    def end(self, line: Line) -> None:
        """The owner of this line waits no more for its runner."""
        runners = self._models.get(line.model, {})
        owners = runners.get(line.runner)
        if owners is None or owners.pop(line.owner, None) is None:
            return
        if not owners:
            del runners[line.runner]
            if not runners:
                del self._models[line.model]
        own = self._owners[line.owner]
        del own[line.runner]
        if not own:
            del self._owners[line.owner]
        if len(own) <= MOST_UNLOADED:
            self.wide.discard(line.owner)

    def only(self, present: Iterable[Line]) -> None:
        """Nobody waits any more but for these."""
        left = {(line.runner, line.owner) for line in present}
        for owner, runners in list(self._owners.items()):
            for runner in [one for one in runners if (one, owner) not in left]:
                self.end(Line(runner, owner, 0))

    # What can be asked

    @property
    def models(self) -> Mapping[str, Mapping[str, Mapping[str, int]]]:
        """Since when each owner waits, by model and runner. Read it, and never keep it."""
        return self._models

    def of_owner(self, owner: str) -> Mapping[str, int]:
        """The runners for which an owner waits, of all models, and since when. Read it, and never keep it."""
        return self._owners.get(owner, _NOTHING)

    def is_mixed(self, line: Line) -> bool:
        """Whether jobs of the model wait for other runners than this line's: then nobody can say how often it will be
        loaded anew before a job's turn.
        """
        runners = self._models.get(line.model, {})
        return len(runners) > (line.runner in runners)

    def since(self, runner: str, model: str, now: int) -> int:
        """Since when somebody waits for a runner; since ``now`` when nobody does."""
        owners = self._models.get(model, {}).get(runner)
        return next(iter(owners.values())) if owners else now
