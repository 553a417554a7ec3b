"""Which models the backends have, as far as they have told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from service.backend.backend import Backend
from service.backend.models import InstalledModel
from service.backend.probing import Probing
from service.backend.runner_options import merged
from service.clock import Clock
from service.errors import NotFoundError
from service.job import model_key, model_of_runner

_NAMES_SHOWN = 20
_FRESH_MS = 1_000
_MOST_PATIENCE_SECONDS = 4.0
"""Callers of lists give up after ten seconds, and may be given one that is a little old."""


class Catalogue:
    """The models of all backends; ``backends`` gives those of the present configuration each time it is read."""

    def __init__(
        self, backends: Iterable[Backend], probing: Probing, clock: Clock, probe_timeout_seconds: float
    ) -> None:
        self._backends = backends
        self._probing = probing
        self._clock = clock
        self.patience_seconds = min(_MOST_PATIENCE_SECONDS, probe_timeout_seconds)
        """How long a question about models waits for one backend before the others are enough."""

    def knows(self, model: str) -> bool:
        """Whether any backend had the model when it was last asked."""
        key = model_key(model)
        return any(backend.has_model(key) for backend in self._backends)

    def known(self) -> Iterator[tuple[Backend, InstalledModel]]:
        """The models for which jobs are accepted, and who has them, as they last told.

        What was told before this process began counts only while no backend answers: then any job is accepted.
        """
        is_silent = not self._answering()
        for backend in self._backends:
            if is_silent or backend.installed is not None:
                yield from ((backend, model) for model in backend.usable)

    def hides(self, model: str) -> bool:
        """Whether every backend that answers has the model but must not use it: none of them can say that it is not
        there.
        """
        key = model_key(model)
        answering = self._answering()
        return bool(answering) and all(backend.hides(key) for backend in answering)

    def may_have(self, model: str) -> bool:
        """Whether a job for the model can be accepted without asking anybody: a backend had it when it was last asked,
        or none answers, so that any model may be there.
        """
        key, is_silent = model_key(model), True
        for backend in self._backends:
            if backend.has_model(key):
                return True
            is_silent = is_silent and not (backend.is_answering or backend.is_unknown)
        return is_silent

    def merged(self, runner: str) -> str:
        """The key under which jobs of this runner wait: without options that are no difference to Ollama for its model,
        as the backends tell.
        """
        model = model_of_runner(runner)
        if model == runner:
            return runner
        told = [traits for backend in self._backends if (traits := backend.traits(model)) is not None]
        return merged(runner, told)

    async def look_for(self, model: str) -> bool:
        """Whether any backend has the model; the lists are asked for again before the answer is no."""
        if not self.knows(model):
            await self.refresh(lambda: self.knows(model))
        return self.knows(model)

    async def require(self, model: str) -> None:
        """Raises NotFoundError for a model that no backend has, with the names that exist.

        While no backend answers, any model may be there.
        """
        if self.may_have(model) or await self.look_for(model) or not self._answering():
            return
        names = self._names()
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
        raise NotFoundError(f"no backend has the model {model!r}; there are: {shown or 'none, pull one first'}")

    async def refresh(self, is_enough: Callable[[], bool] | None = None) -> None:
        """Ask every backend that answers for its models, unless that was just done; and those that nobody has asked.

        One that is silent is waited for no longer than :attr:`patience_seconds`, and nobody once ``is_enough``.
        """
        stale = self._clock.now_ms() - _FRESH_MS
        asked = [
            backend
            for backend in self._backends
            if backend.is_unknown or (backend.is_answering and backend.installed_list.told_at < stale)
        ]
        probes = {asyncio.ensure_future(self._probing.probe(backend)) for backend in asked}
        try:
            async with asyncio.timeout(self.patience_seconds):
                while probes and not (is_enough is not None and is_enough()):
                    done, probes = await asyncio.wait(probes, return_when=asyncio.FIRST_COMPLETED)
                    for probe in done:
                        probe.result()
        except TimeoutError:
            return
        finally:
            # Whoever watches the backends asks them again, and waits for as long as it takes.
            for probe in probes:
                probe.cancel()

    def _answering(self) -> list[Backend]:
        return [backend for backend in self._backends if backend.is_answering]

    def _names(self) -> list[str]:
        """Of the models that may be used, by name."""
        return sorted({model.name for _, model in self.known()})
