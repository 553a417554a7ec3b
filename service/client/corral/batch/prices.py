"""What tokens cost."""

from __future__ import annotations

from dataclasses import dataclass

_CHARACTERS_A_TOKEN = 4
"""What English has with most tokenizers; code and other languages have fewer."""
_MILLION = 1_000_000


@dataclass(frozen=True)
class Prices:
    """Of a million tokens each, in whatever currency; None where nobody has said."""

    asked: float | None = None
    answered: float | None = None

    @property
    def is_known(self) -> bool:
        return self.asked is not None or self.answered is not None

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many cost."""
        return (prompt_tokens * (self.asked or 0) + completion_tokens * (self.answered or 0)) / _MILLION


def estimated_tokens(characters: int) -> int:
    """How many tokens so many characters may be."""
    return -(-characters // _CHARACTERS_A_TOKEN)
