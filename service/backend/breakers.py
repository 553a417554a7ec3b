"""Whose faults they are: a backend's breaker for the server, and one for each model that fails there.

A model that cannot be loaded, or whose runner dies, says nothing of the others: its own jobs rest. When a second one
fails without a success in between it is taken for the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from service.backend.breaker import Breaker

_MOST_MODELS = 256


class Breakers:
    """The breakers of one backend; ``build`` makes one."""

    def __init__(self, build: Callable[[], Breaker]) -> None:
        self._build = build
        self.server = build()
        self._models: dict[str, Breaker] = {}

    @property
    def failing(self) -> Mapping[str, Breaker]:
        """Of the models that have failed since their last success. Read it, and never keep it."""
        return self._models

    def let_through(self, model: str) -> bool:
        """Whether a job of this model may be sent, as far as the model is concerned."""
        one = self._models.get(model)
        return one is None or one.lets_through

    def are_closed_for(self, model: str) -> bool:
        """Whether nothing has opened that keeps jobs of this model back."""
        one = self._models.get(model)
        return self.server.is_closed and (one is None or one.is_closed)

    def begin(self, model: str) -> None:
        """A job of this model is sent."""
        self.server.begin()
        if model in self._models:
            self._models[model].begin()

    def succeeded(self, model: str) -> None:
        """The backend did its part."""
        self.server.succeeded()
        self._models.pop(model, None)

    def abandoned(self, model: str) -> None:
        """A job ended without a word about the backend."""
        self.server.abandoned()
        if model in self._models:
            self._models[model].abandoned()

    def failed(self, model: str, *, is_models: bool) -> Breaker | None:
        """The backend was at fault, ``is_models`` when it answered and it was over this model. What has opened now."""
        if not is_models or len(self._models) >= _MOST_MODELS:
            return self.server if self.server.failed() else None
        one = self._models.get(model)
        if one is None:
            one = self._models[model] = self._build()
        has_opened = one.failed()
        if len(self._models) == 1:
            self.server.abandoned()
        elif self.server.failed():
            return self.server
        return one if has_opened else None

    def came_back(self) -> None:
        """It was away and answers again: see :meth:`service.backend.breaker.Breaker.came_back`."""
        self.server.came_back()
        self._models.clear()
