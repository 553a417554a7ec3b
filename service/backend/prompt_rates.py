"""How long the first byte of a loaded model may take: as long as its own rate gives reason to expect, ten times over.

The rates are learned from replies. A prompt that Ollama has in its cache costs next to nothing and teaches a rate that
no fresh prompt reaches, and an image has many bytes and few tokens: so each model is taken at the slowest rate that it
has shown, and replies whose prompt took less than a second, or had few tokens for its size, teach nothing.
"""

from __future__ import annotations

from service.job import Counts

_TIMES = 10
_LEAST_SECONDS = 600.0
_TEACHES_FROM_MS = 1_000
_MOST_BYTES_A_TOKEN = 16
"""Text has three to five, in frames of JSON somewhat more."""
_MOST_MODELS = 256


class PromptRates:
    """The rates of a backend's models."""

    def __init__(self) -> None:
        self._seconds_a_byte: dict[str, float] = {}

    def learn(self, model: str, size: int, counts: Counts) -> None:
        """A reply to a body of ``size`` bytes says this of its prompt."""
        if counts.prompt_ms is None or counts.prompt_ms <= _TEACHES_FROM_MS:
            return
        if counts.prompt_tokens is not None and size > _MOST_BYTES_A_TOKEN * counts.prompt_tokens:
            return
        known = self._seconds_a_byte
        if model in known or len(known) < _MOST_MODELS:
            known[model] = max(known.get(model, 0.0), counts.prompt_ms / 1000 / max(1, size))

    def limit_seconds(self, model: str, size: int, ceiling_seconds: float) -> float:
        """How long the first byte may take for a body of ``size`` bytes; the ceiling where nothing is learned."""
        rate = self._seconds_a_byte.get(model)
        if rate is None:
            return ceiling_seconds
        return min(ceiling_seconds, max(_LEAST_SECONDS, _TIMES * rate * size))
