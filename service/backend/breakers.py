"""Whose fault a failure is: a backend has a breaker for the server, and one for each model that fails there.

A model that cannot be loaded, or whose runner dies, says nothing about the others: only its own jobs rest. When a
second model fails without a success in between, the server is taken to be at fault.
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
        self._suspects: set[str] = set()
        """The weights that have failed since the last success of any model."""

    @property
    def failing(self) -> Mapping[str, Breaker]:
        """The breakers of the models that have failed since their last success. Read it, and never keep it."""
        return self._models

    def let_through(self, model: str) -> bool:
        """Whether a job of this model may be sent, as far as the model is concerned."""
        one = self._models.get(model)
        return one is None or one.lets_through

    def are_closed_for(self, model: str) -> bool:
        """Whether no breaker has opened that could keep jobs of this model back."""
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
        self._suspects.clear()

    def abandoned(self, model: str) -> None:
        """A job ended without a word about the backend."""
        self.server.abandoned()
        if model in self._models:
            self._models[model].abandoned()

    def server_failed(self, model: str) -> Breaker | None:
        """The server was at fault, with a job of this model. Returns its breaker if that has opened now."""
        one = self._models.get(model)
        if one is not None and not one.is_closed:
            # The one call that may try this model has ended, and not well.
            one.failed()
        return self.server if self.server.failed() else None

    def model_failed(self, model: str, weights: str | None) -> Breaker | None:
        """The server answered with a failure of this model. Returns the breaker that has opened now.

        ``weights`` tell a second model from one more name of the first; None for a model that runs elsewhere.
        """
        if model not in self._models and len(self._models) >= _MOST_MODELS:
            return self.server_failed(model)
        one = self._models.get(model) or self._models.setdefault(model, self._build())
        has_opened = one.failed()
        if weights is not None:
            self._suspects.add(weights)
        if weights is None or len(self._suspects) == 1:
            self.server.abandoned()
        elif self.server.failed():
            return self.server
        return one if has_opened else None

    def came_back(self) -> None:
        """The backend was away and answers again: see :meth:`service.backend.breaker.Breaker.came_back`."""
        for one in (self.server, *self._models.values()):
            one.came_back()
