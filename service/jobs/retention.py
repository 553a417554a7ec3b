"""What jobs that have ended hold of text goes before their rows: as their keys say, or for want of room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from service.clock import Clock
from service.errors import ServiceError
from service.job import Job
from service.jobs.ledger import Ledger
from service.jobs.row_cache import RowCache
from service.store.contents import AT_ONCE, Candidate, ContentStore

_log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_TAKEN_MS = 600_000
"""How long the contents of a job are kept after its result was sent whole, where its key keeps nothing."""
_NEVER_BEGUN_MS = _DAY_MS
"""How long the contents of a job are kept that was cancelled while it waited: nobody has used anything for it."""
_FULL = 0.95
"""From this share of the bytes on, room is made,"""
_AMPLE = 0.9
"""until no more than this are used."""


def retention_ms(days: int | None) -> int | None:
    """How long after its end a job of a key with these ``retention_days`` is kept, as far as is known when it comes."""
    return None if days is None else max(1, days) * _DAY_MS


class Retention:
    """Deletes contents. ``max_bytes`` bounds what is stored; 0: nothing does."""

    def __init__(
        self, contents: ContentStore, ledger: Ledger, row_cache: RowCache, clock: Clock, max_bytes: int
    ) -> None:
        self._contents = contents
        self._ledger = ledger
        self._row_cache = row_cache
        self._clock = clock
        self.max_bytes = max_bytes
        self.used_bytes: int | None = None
        """As last looked at, where there is a bound."""
        self.jobs_emptied = 0
        """Jobs whose contents went for want of room since the start,"""
        self._is_beyond = False
        self.last_emptied_at: int | None = None
        """and when the last of them did."""
        self._oldest_since = 0
        """Jobs that ended before have no contents any more."""
        self._noting: set[asyncio.Task[None]] = set()

    def sent(self, job: Job) -> None:
        """The result of a job whose key keeps nothing was sent whole to who asked for it: its contents go soon."""
        noting = asyncio.create_task(self._note_sent(job.id))
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    async def tend(self, now: int) -> int:
        """Delete the contents whose time has come by then (milliseconds since the epoch); of how many jobs. Raises
        CannotStoreError.
        """
        gone = 0
        try:
            while found := await self._contents.due(now) or await self._contents.never_begun(now - _NEVER_BEGUN_MS):
                gone += (await self._empty(found))[0]
        finally:
            erased = self._contents.erase() if gone else None
        if erased is not None:
            await erased
        return gone

    async def make_room(self) -> int:
        """Delete the oldest contents while more is stored than may be; of how many jobs. Raises CannotStoreError."""
        if not self.max_bytes:
            return 0
        before = self.jobs_emptied
        try:
            await self._empty_oldest()
            has_more = True
            while has_more:
                has_more = await self._contents.give_back(self.max_bytes)
        finally:
            gone = self.jobs_emptied - before
            self._tell(gone)
            erased = self._contents.erase() if gone else None
        if erased is not None:
            await erased
        return gone

    async def _empty_oldest(self) -> None:
        used, is_making_room = await self._measured(), False
        while used > self.max_bytes * (_AMPLE if is_making_room else _FULL):
            found = await self._next_to_go()
            if not found:
                break
            emptied, freed = await self._empty(_enough(found, used - int(self.max_bytes * _AMPLE)))
            if not emptied:
                # Another process makes room: what it deletes is enough for both.
                break
            is_making_room = True
            self.jobs_emptied += emptied
            # It rests a moment: others write, too.
            await asyncio.sleep(0)
            used -= freed
            if used <= self.max_bytes * _AMPLE:
                used = await self._measured()

    async def _measured(self) -> int:
        self.used_bytes = await self._contents.used_bytes()
        return self.used_bytes

    async def _next_to_go(self) -> list[Candidate]:
        found = await self._contents.never_begun(self._clock.now_ms())
        if not found:
            found = await self._contents.oldest(self._oldest_since)
            # Another process may have ended a job a moment earlier than one that is known here.
            self._oldest_since = found[0].finished_at if len(found) == AT_ONCE else 0
        return found or await self._contents.oldest(0)

    async def _empty(self, found: Sequence[Candidate]) -> tuple[int, int]:
        """Of how many jobs the contents are deleted, and about how many bytes these were."""
        ids = [one.id for one in found]
        emptied, freed = await self._ledger.tracked(self._contents.empty(ids, self._clock.now_ms()))
        for job in emptied:
            if self._row_cache.get(job.id) is not None:
                self._row_cache.put(job)
            self._ledger.tell_of_loss(job)
        return len(emptied), freed

    async def _note_sent(self, job_id: str) -> None:
        try:
            await self._contents.note_sent(job_id, self._clock.now_ms(), _TAKEN_MS)
        except ServiceError as error:
            _log.warning("that the result of job %s was sent could not be noted: %s", job_id, error)

    def _tell(self, deleted: int) -> None:
        if deleted:
            self.last_emptied_at = self._clock.now_ms()
            _log.warning("the contents of %d old jobs were deleted, since database.max_bytes was nearly full", deleted)
        is_beyond = self.used_bytes is not None and self.used_bytes > self.max_bytes
        if is_beyond and not self._is_beyond:
            _log.warning("more is stored than database.max_bytes allows, and no job that has ended has contents left")
        self._is_beyond = is_beyond


def _enough(found: Sequence[Candidate], wanted_bytes: int) -> Sequence[Candidate]:
    """As many of the first as may free so much. Mostly a prompt is stored beside a request of about its size."""
    for count, one in enumerate(found, 1):
        wanted_bytes -= 2 * one.size
        if wanted_bytes <= 0:
            return found[:count]
    return found
