"""Whether a backend answers a model's requests one after another although it is given more of them.

A plain Ollama has one slot for each model (wire contract 4.1). What is sent beyond it waits there without a word: in
the server's order, and not in ours. Nothing tells how many slots there are, but the times at which tokens come show it.
Pure: it is told what happens and when (milliseconds).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

_LEAST_OVERLAP_MS = 1_000
_ENOUGH = 5
"""So many replies in turn, and none beside another, are no chance."""
_TRIED_AGAIN_MS = 3_600_000
_READING_MS = 50
"""What has come on two connections is read in any order, and durations are rounded: by so much tokens may seem to have
come at once, or one reply to have begun before the other had ended.
"""
_MOST_MODELS = 256


class Finding(Enum):
    """What a reply has shown."""

    ONE_AT_A_TIME = auto()
    """The model is served so: from now on it has one seat."""
    AT_ONCE = auto()
    """It is not, or no longer: it has all seats again."""


class Durations(NamedTuple):
    """What a reply of Ollama's own formats says of itself, in milliseconds."""

    load_ms: int = 0
    prompt_ms: int = 0
    generation_ms: int = 0


@dataclass(slots=True)
class _Watched:
    """A model. Of the replies that are over only the end of the last one matters to those that come."""

    sending: set[Sending] = field(default_factory=set)
    last_end: int = 0
    in_turn: int = 0
    """How many replies waited for another to end, since two last sent tokens at once."""


class Sending:
    """A reply of which the first token has come."""

    __slots__ = ("first_token_at", "model", "sent_at", "watched")

    def __init__(self, model: str, watched: _Watched, sent_at: int, first_token_at: int) -> None:
        self.model = model
        self.watched = watched
        self.sent_at = sent_at
        """When its request was sent."""
        self.first_token_at = first_token_at


class OverlapWatch:
    """The models of one backend. ``least_overlap_ms``: so long before the end of one reply the next must have been
    asked for, to show anything by its waiting.
    """

    def __init__(self, least_overlap_ms: int = _LEAST_OVERLAP_MS) -> None:
        self._least_overlap_ms = least_overlap_ms
        self._models: dict[str, _Watched] = {}
        self.limited: dict[str, int] = {}
        """The models that are served one at a time, and since when that is known. Read it only."""

    def seats(self, model: str, now: int) -> int | None:
        """How many seats a model may have; None: all. After an hour with one seat two are tried."""
        since = self.limited.get(model)
        if since is None:
            return None
        return 1 if now - since < _TRIED_AGAIN_MS else 2

    def began(self, model: str, sent_at: int, now: int) -> Sending:
        """The first token of a reply has come. To be followed by :meth:`ended`, however the reply ends."""
        watched = self._models.get(model)
        if watched is None:
            if len(self._models) >= _MOST_MODELS:
                self._forget(next(iter(self._models)))
            watched = self._models[model] = _Watched()
        reply = Sending(model, watched, sent_at, now)
        watched.sending.add(reply)
        return reply

    def ended(self, reply: Sending, now: int, durations: Durations | None) -> Finding | None:
        """A reply has ended, with these durations where it told them."""
        watched, first_token_at = reply.watched, reply.first_token_at
        watched.sending.discard(reply)
        if durations is not None:
            # Ollama holds tokens back while a tool call is composed, and some proxies do until the end.
            first_token_at = min(first_token_at, now - durations.generation_ms)
        end_before = watched.last_end
        watched.last_end = max(end_before, now)
        if end_before - first_token_at > _READING_MS or any(
            now - other.first_token_at > _READING_MS for other in watched.sending
        ):
            watched.in_turn = 0
            return None if self.limited.pop(reply.model, None) is None else Finding.AT_ONCE
        if durations is None or self.seats(reply.model, now) == 1:
            return None
        slack_ms = max(_READING_MS, durations.prompt_ms // 10)
        if _begun_at(reply.sent_at, first_token_at, durations, end_before) < end_before - slack_ms:
            if reply.sent_at + durations.load_ms <= end_before:
                # It did not wait: its prompt was read beside the other reply.
                watched.in_turn = 0
            return None
        if end_before - self._least_overlap_ms < reply.sent_at:
            return None
        watched.in_turn += 1
        if watched.in_turn < _ENOUGH:
            return None
        watched.in_turn = 0
        is_news = reply.model not in self.limited
        self.limited[reply.model] = now
        return Finding.ONE_AT_A_TIME if is_news else None

    def _forget(self, model: str) -> None:
        del self._models[model]
        self.limited.pop(model, None)


def _begun_at(sent_at: int, first_token_at: int, durations: Durations, end_before: int) -> int:
    """When the server began with a request, at the earliest.

    A load is counted from the request's arrival (wire contract 1.2), and takes tens of milliseconds for a model that is
    there. Where it was over before the other reply ended, it is not what the request waited for afterwards.
    """
    begun_at = first_token_at - durations.prompt_ms
    return begun_at if sent_at + durations.load_ms <= end_before else begun_at - durations.load_ms
