"""How many calls are under way, how many wait, and whose turn is next."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from corral.errors import ConfigurationError, QueueFullError
from corral.settings import Settings
from corral.shapes import Priority

HIGH, NORMAL, LOW = 0, 1, 2
_WORDS = ("high", "normal", "low")


def rank_of(priority: Priority) -> int:
    """HIGH, NORMAL or LOW. Raises ConfigurationError."""
    if priority is None:
        return NORMAL
    if isinstance(priority, str) and priority.lower() in _WORDS:
        return _WORDS.index(priority.lower())
    if type(priority) is int and priority in (HIGH, NORMAL, LOW):
        return priority
    raise ConfigurationError(f'priority = {priority!r}: give "high", "normal" or "low", or PRIORITY_HIGH …')


def word_of(rank: int) -> str:
    """The priority as Corral calls it, whose numbers mean something else."""
    return _WORDS[rank]


class _Waiter:
    def __init__(self, order: tuple[int, int], *, is_refusable: bool) -> None:
        self.order = order
        self.is_refusable = is_refusable
        self.loop = asyncio.get_running_loop()
        self.admitted: asyncio.Future[None] = self.loop.create_future()
        self.has_place = False

    def __lt__(self, other: _Waiter) -> bool:
        return self.order < other.order

    def admit(self) -> None:
        if not self.admitted.done():
            self.admitted.set_result(None)


class Places:
    """``max_concurrent_requests`` places, and ``queue_size`` calls that may wait for one: by priority, then by age.

    It may be asked from several event loops, in threads of their own.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._numbers = itertools.count()
        self._waiting: list[_Waiter] = []
        self.active = 0

    def begin_anew(self) -> None:
        """Go on in a process that was forked: those who have places, and those who wait, are the parent's."""
        self._lock, self._waiting, self.active = Lock(), [], 0

    @property
    def queued(self) -> int:
        return len(self._waiting)

    async def take(self, rank: int, *, is_refusable: bool = True) -> None:
        """Wait for a place, which is to be given back. Raises QueueFullError at once when too many wait already.

        Who is not to be refused takes up none of ``queue_size`` either.
        """
        with self._lock:
            if not self._waiting and self.active < self._settings.max_concurrent_requests:
                self.active += 1
                return
            most = self._settings.queue_size
            if is_refusable and (many := self._refusable(most)) >= most:
                raise QueueFullError(f"{many} calls wait already, and queue_size = {most}: call later, or allow more")
            waiter = _Waiter((rank, next(self._numbers)), is_refusable=is_refusable)
            heapq.heappush(self._waiting, waiter)
        try:
            await waiter.admitted
        except BaseException:
            self._left(waiter)
            raise

    def give_back(self) -> None:
        """A call that had a place has ended."""
        with self._lock:
            self.active -= 1
        self.look_again()

    def look_again(self) -> None:
        """Places may be free: because a call has ended, or a limit has changed."""
        with self._lock:
            while self._waiting and self.active < self._settings.max_concurrent_requests:
                waiter = heapq.heappop(self._waiting)
                try:
                    waiter.loop.call_soon_threadsafe(waiter.admit)
                except RuntimeError:
                    # Its loop is closed, so that nobody waits there any more.
                    continue
                waiter.has_place = True
                self.active += 1

    @contextmanager
    def given_back(self) -> Iterator[None]:
        """Give the place back at the end of the block."""
        try:
            yield
        finally:
            self.give_back()

    def _refusable(self, enough: int) -> int:
        """How many wait that take up the queue; all of them are only looked at where there may be enough."""
        waiting = self._waiting
        return len(waiting) if len(waiting) < enough else sum(waiter.is_refusable for waiter in waiting)

    def _left(self, waiter: _Waiter) -> None:
        with self._lock:
            has_place = waiter.has_place
            if not has_place and waiter in self._waiting:
                self._waiting.remove(waiter)
                heapq.heapify(self._waiting)
        if has_place:
            self.give_back()
