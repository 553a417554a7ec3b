"""The order among the waiting jobs of each model. Pure: it is told what happens, and asked whose turn it is."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping

from service.job import Line, model_of_runner
from service.queue.least_served import Lines, Place, Waiting
from service.queue.order_rows import ModelRow, ShareRow
from service.queue.position import jobs_before
from service.queue.shares import Counter, ModelShares, Share, exact

_REMEMBERED_MODELS = 1000


class Order:
    """Who was served what, and who is next. ``boosts_ms`` is the lead of each priority, in backend milliseconds;
    ``weights`` are those of owners that have another than 1: seconds count for less with a higher weight.
    """

    def __init__(self, boosts_ms: Mapping[int, float], weights: Mapping[str, float] | None = None) -> None:
        self._boosts_ms = _as_floats(boosts_ms)
        self._weights: Mapping[str, float] = {} if weights is None else weights
        self._models: dict[str, ModelShares] = {}
        self._changed: dict[tuple[str, str], Line] = {}
        self._last_turn = 0
        self.has_changed = asyncio.Event()
        """Set while there are changes that :meth:`take_changes` has not given yet."""

    def set_boosts(self, boosts_ms: Mapping[int, float]) -> None:
        """Priorities lead by these from now on; what owners were served stays as it is."""
        self._boosts_ms = _as_floats(boosts_ms)
        for model in self._models.values():
            model.set_boosts(self._boosts_ms)

    # What happens

    def begin_waiting(self, line: Line, now: int, waiting: Waiting) -> None:
        """A job arrived on ``line``, which had none; ``waiting`` are the ready jobs of its model before it."""
        model = self._model(line.model)
        lines = waiting.get(line.owner)
        if lines and line.priority in lines:
            model.enter(line.runner, line.owner, is_first=False)
            return
        turn = self._next_turn(now)
        if lines:
            share = model.share(line.owner, turn)
        else:
            begin = model.begins_at(waiting, model.cost(self._weight(line.owner)), line.priority)
            share = model.share(line.owner, turn, begin)
            share.own.served = max(share.own.served, begin)
            share.own.turn = turn
        counter = share.lines.setdefault(line.priority, Counter(share.reached, turn))
        counter.served = max(counter.served, share.reached)
        counter.turn = turn
        model.enter(line.runner, line.owner, is_first=not waiting)

    def keep_waiting(self, line: Line, now: int) -> None:
        """Jobs of ``line`` were found in the store at the start: they waited before, so their owner loses nothing."""
        model = self._model(line.model)
        share = model.share(line.owner, self._next_turn(now))
        share.lines.setdefault(line.priority, Counter(share.reached, share.own.turn))
        model.enter(line.runner, line.owner, is_first=False)

    def charge(self, line: Line, now: int) -> float:
        """A job of the line was claimed: charge the expected cost, and say what was charged."""
        model = self._model(line.model)
        turn = self._next_turn(now)
        share = model.share(line.owner, turn)
        cost = model.cost(self._weight(line.owner))
        share.running += 1
        share.own.charge(cost, turn)
        model.reached = max(model.reached, share.own.served)
        if model.crowd is not None:
            model.crowd.age += 1
        counter = share.lines.setdefault(line.priority, Counter(share.reached, turn))
        counter.charge(cost, turn)
        share.reached = max(share.reached, counter.served)
        return cost

    def loads(self, runner: str, owner: str, now: int) -> None:
        """A job of this owner has the model of this runner loaded anew."""
        self._model(model_of_runner(runner)).share(owner, 0).loaded_at = now

    def refund(self, line: Line, charged: float) -> None:
        """The job that was charged for was not there."""
        self._settle(line, charged, 0.0)

    def correct(self, line: Line, charged: float, used_ms: float, *, is_typical: bool, load_ms: float = 0.0) -> None:
        """The job ended after ``used_ms`` of a backend, loads aside; ``is_typical`` when it ran to its own end.

        ``load_ms`` is what the load took that its owner alone has wanted.
        """
        self._settle(line, charged, exact((used_ms + load_ms) / self._weight(line.owner)))
        self._model(line.model).learn(used_ms, is_typical=is_typical)
        self._changed[line.model, line.owner] = line
        self.has_changed.set()

    # What to do

    def pick(
        self, runner: str, waiting: Waiting, without: Collection[Line] = (), among: Collection[str] | None = None
    ) -> Line | None:
        """Of those who wait for a runner (``waiting``), or of these owners among them, the line whose oldest job is
        next; ``without`` are lines of the runner to pass over.
        """
        limited = _left(waiting, without)
        model = self._model(model_of_runner(runner))
        owner: str | None
        if among is not None:
            left = ((one, limited.get(one, waiting[one])) for one in among if one in waiting)
            owner = min((model.place(one, lines) for one, lines in left if lines), default=(0.0, 0, None))[2]
        elif len(waiting) > 1:
            owner = model.least_served(runner, waiting, limited)
        else:
            owner = next(iter(waiting), None)
        if owner is None:
            return None
        lines = limited.get(owner, waiting[owner])
        if len(lines) <= 1:
            return Line(runner, owner, next(iter(lines))) if lines else None
        share = model.share(owner, 0)
        return Line(runner, owner, min(lines, key=lambda priority: self._line_rank(share, priority)))

    def place(self, model: str, owner: str, lines: Lines) -> Place:
        """Where an owner with these lines stands among others of the model: the smallest is next."""
        return self._model(model).place(owner, lines)

    def loaded_at(self, model: str, owner: str) -> int:
        """When the model was last loaded for a job of this owner; 0 for never."""
        known = self._models.get(model)
        share = None if known is None else known.shares.get(owner)
        return 0 if share is None else share.loaded_at

    def ahead(self, line: Line, rank: int, waiting: Waiting) -> int:
        """How many ready jobs of the model go before the one that has ``rank`` jobs of its owner and priority ahead.

        ``waiting`` are the ready jobs of the model. The number is exact as things stand, where they are all for one
        runner; when very many owners wait it is an estimate.
        """
        model = self._models.get(line.model)
        lines = waiting.get(line.owner, {})
        is_alone = not waiting or (len(waiting) == 1 and line.owner in waiting)
        if model is None or (is_alone and len(lines) <= 1):
            return rank
        return jobs_before(model, line, rank, waiting, self._boosts_ms, self._weight)

    def expected_ms(self, model: str) -> float | None:
        """What a job is thought to cost of a backend; None before any has ended."""
        known = self._models.get(model)
        return None if known is None else known.mean_ms

    def cost(self, model: str, owner: str) -> float:
        """What a job of this owner would be charged."""
        return self._model(model).cost(self._weight(owner))

    # What is kept

    def take_changes(self) -> list[Line]:
        """One line of each model and owner whose counters have changed since this was last asked."""
        changed, self._changed = self._changed, {}
        self.has_changed.clear()
        return list(changed.values())

    def put_back(self, lines: Iterable[Line]) -> None:
        """These changes could not be stored: they are given again with the next change."""
        self._changed = {(line.model, line.owner): line for line in lines} | self._changed

    def model_row(self, model: str) -> ModelRow:
        """To be stored with an outcome on this model."""
        return self._model(model).row(model)

    def share_row(self, line: Line) -> ShareRow:
        """To be stored with an outcome of this line's owner."""
        return self._model(line.model).share(line.owner, 0).row(line.model, line.owner)

    def restore(self, models: Iterable[ModelRow], shares: Iterable[ShareRow]) -> None:
        """Go on from what was stored; what waits is told with :meth:`keep_waiting` afterwards."""
        for one in models:
            self._model(one.model).restore(one)
        for row in shares:
            share = Share.of_row(row)
            self._model(row.model).shares[row.owner] = share
            self._last_turn = max(self._last_turn, row.turn, *(counter.turn for counter in share.lines.values()))

    def forget_idle(self, waiting: Mapping[str, Waiting]) -> tuple[list[str], list[tuple[str, str]]]:
        """Forget each owner that stands as a newcomer would; returns which rows may go: those of the models, and those
        of the owners, each with its model.

        ``waiting`` are the ready jobs of all models. On a model without waiting and running jobs, nobody is ahead.
        """
        shares: list[tuple[str, str]] = []
        idle: list[str] = []
        for model, known in self._models.items():
            present = waiting.get(model, {})
            is_idle = not present and not any(share.running for share in known.shares.values())
            begin = known.begins_at(present, 0.0, min(self._boosts_ms))
            gone = [
                owner
                for owner, share in known.shares.items()
                if is_idle or (owner not in present and not share.running and share.own.served <= begin)
            ]
            shares += ((model, owner) for owner in gone)
            for owner in gone:
                del known.shares[owner]
                self._changed.pop((model, owner), None)
            if is_idle:
                idle.append(model)
        models = idle[: max(0, len(self._models) - _REMEMBERED_MODELS)]
        for model in models:
            del self._models[model]
        return models, shares

    # Within

    def _settle(self, line: Line, charged: float, cost: float) -> None:
        model = self._model(line.model)
        share = model.share(line.owner, 0)
        share.running -= 1
        share.own.settle(charged, cost)
        counter = share.lines.get(line.priority)
        if counter is not None:
            counter.settle(charged, cost)
        model.fell(line.owner)

    def _model(self, model: str) -> ModelShares:
        known = self._models.get(model)
        if known is None:
            known = self._models[model] = ModelShares(self._boosts_ms)
        return known

    def _line_rank(self, share: Share, priority: int) -> tuple[float, int]:
        counter = share.lines.get(priority)
        served, turn = (counter.served, counter.turn) if counter else (share.reached, 0)
        return served - self._boosts_ms[priority], turn

    def _weight(self, owner: str) -> float:
        return self._weights.get(owner, 1.0)

    def _next_turn(self, now: int) -> int:
        """The present, and later than every turn before it: claims of one millisecond keep their order."""
        self._last_turn = max(now, self._last_turn + 1)
        return self._last_turn


def _as_floats(boosts_ms: Mapping[int, float]) -> dict[int, float]:
    return {priority: float(boost) for priority, boost in boosts_ms.items()}


def _left(waiting: Waiting, without: Collection[Line]) -> Waiting:
    """The lines that are left to each owner of whom some are passed over."""
    left: dict[str, dict[int, int]] = {}
    for _, owner, priority in without:
        if owner in waiting:
            left.setdefault(owner, dict(waiting[owner])).pop(priority, None)
    return left
