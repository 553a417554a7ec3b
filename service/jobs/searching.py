"""Jobs that no index finds alone: the rows of the narrowest one are looked through in slices, the newest first.

A search ends when its page is full and it has gone far enough, or after some seconds, and says how far it has come; it
can be gone on with from there. Whoever leaves takes the search along. There is no index of what was asked, since
deleted words would stay in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.errors import LimitReachedError, UnavailableError
from service.jobs.records import Page
from service.store.job_filters import Filter
from service.store.job_queries import Edge, JobQueries
from service.store.job_statements import EXACT_TOTAL

MOST_COUNTED = 100_000
"""So many jobs are looked through to say how many are found, when the page is full already."""
_MOST_SECONDS = 5.0
_FIRST_SIZE = 64
_LARGEST_SIZE = 16_384
_SMALLEST_SIZE = 4
"""Of those that merely take long, as all do when many search; one that is given up may be tried again with less."""
_SHORT_SECONDS = 0.02
_LONG_SECONDS = 0.1
"""Slices grow while they take less than the one, and shrink when they take more than the other."""
_MOST_SLICE_SECONDS = 1.0
"""A slice that takes longer is given up, for a smaller one."""


class SliceSize:
    """How many entries are looked through at a time."""

    def __init__(self, first: int = _FIRST_SIZE) -> None:
        self.entries = first

    def took(self, seconds: float) -> None:
        """Take more or fewer from now on, by how long the last slice took."""
        if seconds < _SHORT_SECONDS:
            self.entries = min(_LARGEST_SIZE, 2 * self.entries)
        elif seconds > _LONG_SECONDS:
            self.entries = min(self.entries, max(_SMALLEST_SIZE, self.entries // 2))

    def was_given_up(self) -> None:
        """Take a quarter from now on, down to one: a single row may be long."""
        self.entries = max(1, self.entries // 4)


class Search:
    """The way through the rows of one condition's index, ``by``, to the jobs of a page."""

    def __init__(
        self, queries: JobQueries, which: Filter, by: str, limit: int, offset: int, before: int | None = None
    ) -> None:
        self._queries = queries
        self._which = which
        self._by = by
        self._limit = limit
        self._offset = offset
        self._is_continued = before is not None
        self._before = before
        self._size = SliceSize()
        self._shown: list[int] = []
        self._found = 0
        self._looked = 0
        self._edge: Edge | None = None
        """The last job that was looked at."""
        self._is_complete = False

    async def page(self, total: int | None) -> Page:
        """What is found. ``total`` is how many jobs the filter finds, where that is known.

        Raises UnavailableError when not even the first slice could be looked through in time: an empty page that names
        no job behind which it goes on would be taken for the end.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _MOST_SECONDS
        while not self._is_enough(is_counted=total is not None) and loop.time() < end:
            seconds = end - loop.time()
            # A single row can only be given time.
            await self._look(seconds if self._size.entries == 1 else min(_MOST_SLICE_SECONDS, seconds))
        if self._edge is None and not self._is_complete:
            raise UnavailableError("too much is searched for at the moment; try again later")
        found = await self._queries.by_seqs(self._shown)
        jobs = [found[seq] for seq in self._shown if seq in found]
        is_last = self._is_complete and self._found <= self._offset + self._limit
        after = None
        if not is_last:
            is_full = len(self._shown) == self._limit and jobs
            after = jobs[-1].id if is_full else self._edge and self._edge.id
        is_capped = total is None and not self._is_complete
        until = None if self._is_complete or self._edge is None else self._edge.created_at
        return Page(jobs, self._found if total is None else total, is_capped, after, self._is_complete, until)

    def _is_enough(self, *, is_counted: bool) -> bool:
        if self._is_complete or (self._found >= EXACT_TOTAL and not is_counted):
            return True
        is_full = len(self._shown) >= self._limit
        return is_full and (is_counted or self._is_continued or self._looked >= MOST_COUNTED)

    async def _look(self, seconds: float) -> None:
        """Look through one slice."""
        loop = asyncio.get_running_loop()
        begun, size = loop.time(), self._size.entries
        try:
            async with asyncio.timeout(seconds):
                edge = await self._queries.edge(self._which, self._by, self._before, size)
                found = await self._queries.slice(self._which, self._by, self._before, 0 if edge is None else edge.seq)
        except TimeoutError:
            self._size.was_given_up()
            return
        self._size.took(loop.time() - begun)
        first = max(0, self._offset - self._found)
        self._shown += found[first : first + self._limit - len(self._shown)]
        self._found += len(found)
        self._looked += size
        if edge is None:
            self._is_complete = True
        else:
            self._edge, self._before = edge, edge.seq


class SearchTurns:
    """Each owner searches once at a time. ``patience_seconds``: how long its second search waits for the first."""

    def __init__(self, patience_seconds: float = _MOST_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._turns: dict[str, _Turn] = {}

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Wait for the owner's turn. Raises LimitReachedError when its other search does not end in time."""
        turn = self._turns.setdefault(owner, _Turn())
        lock, turn.users = turn.lock, turn.users + 1
        try:
            try:
                async with asyncio.timeout(self._patience_seconds):
                    await lock.acquire()
            except TimeoutError:
                raise LimitReachedError(
                    "another search of yours is not over; wait for it, or leave it", _MOST_SECONDS
                ) from None
            try:
                yield
            finally:
                lock.release()
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[owner]


class _Turn:
    """One owner's turn. It stays as long as anybody has it or waits for it: between two that follow each other the lock
    is free for a moment.
    """

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
