"""Which models of one backend give no sign of life: a runner that hangs while Ollama lists it as loaded.

A slot that is never given back (Ollama 0.30 to 0.32.14, wire contract 6) or a runner that stands still looks like a
prompt that takes long. Two calls in a row that met the limit on their first byte, with nothing heard from the model
since the first of them was sent, are taken for it. Pure: times are milliseconds of the caller's clock.
"""

from __future__ import annotations

from dataclasses import dataclass

_MOST_MODELS = 256


@dataclass(slots=True)
class Voice:
    """What is heard from one model."""

    heard_at: int = 0
    """When a byte came last, of any reply."""
    silent_since: int | None = None
    """When the call was sent that met its limit last."""
    hung_at: int | None = None
    """Since when it is taken to hang; None: it is not."""
    is_left_alone: bool = False
    """No new job goes there, until it has been unloaded."""
    unloaded_at: int | None = None
    """When it was unloaded for that. It is not unloaded again before it has been heard."""


class Silence:
    """The voices of a backend's models, by the names that their runners have there."""

    def __init__(self) -> None:
        self._voices: dict[str, Voice] = {}

    def voice(self, model: str) -> Voice:
        """The voice of this model, whose ``heard_at`` the caller sets with each byte that comes."""
        voice = self._voices.get(model)
        if voice is None:
            voice = self._voices[model] = Voice()
            if len(self._voices) > _MOST_MODELS:
                del self._voices[next(iter(self._voices))]
        return voice

    @property
    def hung(self) -> list[str]:
        """The models that are taken to hang."""
        return [model for model, voice in self._voices.items() if voice.hung_at is not None]

    def is_hung(self, model: str) -> bool:
        """Whether this model is one of them, and no new job goes there."""
        voice = self._voices.get(model)
        return voice is not None and voice.is_left_alone

    def met_limit(self, model: str, sent_at: int, now: int) -> bool:
        """A call that was sent at ``sent_at`` met the limit on its first byte while the model was loaded.

        Returns whether the model is taken to hang from now on.
        """
        voice = self.voice(model)
        first, voice.silent_since = voice.silent_since, sent_at
        if first is None or voice.heard_at > min(first, sent_at):
            return False
        if voice.unloaded_at is not None and voice.heard_at <= voice.unloaded_at:
            return False
        voice.hung_at = voice.unloaded_at = now
        voice.is_left_alone = True
        return True

    def recovered(self, model: str) -> None:
        """The model was unloaded, or has been heard: jobs may go there again."""
        voice = self.voice(model)
        voice.hung_at = voice.silent_since = None
        voice.is_left_alone = False
