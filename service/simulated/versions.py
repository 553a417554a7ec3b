"""What a version of Ollama does that another does not (wire contract 1 to 4, which name the version at each fact)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_NUMBERS = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")

Number = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The differences between the versions, by what they do and not by their numbers."""

    has_capabilities_in_tags: bool  # 1.1: with `context_length` and `embedding_length`
    tokenizes_before_embedding: bool  # 3.2, row 27: where a request for vectors meets a runner that is gone
    has_finish_chunk: bool  # 2.3: the role in the first chunk only, the finish reason in a chunk of its own
    searches_web_in_responses: bool  # 2.4: and refuses inside the stream there
    tells_token_repeats: bool  # 2.1 (a), 3.2, row 39b: before, such a stream just ended
    has_system_one: bool  # 1.7
    draws_images: bool  # 1.9: until it was taken out

    @property
    def most_repeats(self) -> int:
        """How often a token may be what the one before it was; at the next time the generation is ended."""
        return 100 if self.tells_token_repeats else 30


@lru_cache(maxsize=64)
def behaviour_of(version: str) -> Behaviour:
    """Raises ValueError for what is no version."""
    number = _number(version)
    return Behaviour(
        has_capabilities_in_tags=number >= (0, 30, 0),
        tokenizes_before_embedding=number >= (0, 30, 0),
        has_finish_chunk=number >= (0, 32, 6),
        searches_web_in_responses=number >= (0, 32, 10),
        tells_token_repeats=number >= (0, 34, 1),
        has_system_one=number >= (0, 35, 0),
        draws_images=number < (0, 32, 6),
    )


def _number(version: str) -> Number:
    """Compared as numbers: 0.9 is older than 0.24. A release candidate counts as its release."""
    found = _NUMBERS.match(version)
    if found is None:
        raise ValueError(f"{version!r} is no version of Ollama, such as 0.24.0")
    major, minor, patch = found.groups(default="0")
    return int(major), int(minor), int(patch)
