"""A change of a job, as one process tells it to the others that share the database."""

from __future__ import annotations

from typing import NamedTuple

from service.job import Status

LOOK_AGAIN = ""
"""Told where single changes cannot be, and heard where some may have been missed."""
_NEW = "new"
_STATUSES = frozenset(Status)


class Change(NamedTuple):
    """What happened to the job ``seq``; its row says how it stands now."""

    seq: int
    before: str | None
    """Its status before; None for a job that is new."""
    after: str
    ready: int
    """What its line gains or loses by it in jobs that may be claimed, by those who may."""

    def __str__(self) -> str:
        return f"{self.seq} {self.before or _NEW} {self.after} {self.ready}"

    @classmethod
    def parse(cls, text: str) -> Change | None:
        """What was written by ``str``; None for what a process of another version may have meant."""
        words = text.split(" ")
        if len(words) != 4 or words[2] not in _STATUSES:
            return None
        seq, before, after, ready = words
        return cls(int(seq), None if before == _NEW else before, after, int(ready))
