"""A request that says with an idempotency key that it may be repeated: however often it comes, it is one job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from service.clock import Clock
from service.errors import IdempotencyMismatchError, UniqueViolationError
from service.job import Job, NewJob, Status
from service.jobs.kept_replies import StoredReply, kept_reply
from service.jobs.ledger import Ledger
from service.jobs.records import View
from service.jobs.submission import REVOKED, Submission
from service.jobs.views import Views
from service.live.relay import Relay
from service.store.idempotency import Earlier, RequestKey
from service.store.jobs import JobStore

KEPT_DAYS = 1.0
_KEPT_MS = int(KEPT_DAYS * 86_400_000)

Make = Callable[[], Awaitable[NewJob]]
"""Makes the job of a request that is new."""

_TRIED_AGAIN = ("disconnected", "backend_busy", REVOKED.code)
"""What ended only because its caller was gone, or because nobody had time: who comes again wants an answer. So does who
shows a demo key that was revoked and is used again.
"""


class Repeated(NamedTuple):
    """The job of a request with a key."""

    view: View
    relay: Relay | StoredReply | None
    """Its reply, where one was asked for and this process has it or can still get it."""
    is_earlier: bool
    """It is the job of an earlier request."""


class Repeats:
    """Submit a job once, however often its request comes."""

    def __init__(self, store: JobStore, ledger: Ledger, submission: Submission, views: Views, clock: Clock) -> None:
        self._store = store
        self._ledger = ledger
        self._submission = submission
        self._views = views
        self._clock = clock
        self._asking: dict[tuple[str, str], asyncio.Future[None]] = {}
        """The keys for which a job is being looked up or stored."""

    async def submit(self, asked: RequestKey, make: Make, relay: Relay | None = None) -> Repeated:
        """The job of the first request with this key, or a new one, which ``make`` makes.

        Raises IdempotencyMismatchError when the key was used for something else, and what ``make`` and ``submit`` do.
        """
        name = (asked.owner, asked.key)
        while (under_way := self._asking.get(name)) is not None:
            # The first is on its way to the disk; when it does not get there, this one is the first.
            await asyncio.wait((under_way,))
        finding = self._asking[name] = asyncio.get_running_loop().create_future()
        try:
            return await self._found_or_new(asked, make, relay)
        finally:
            del self._asking[name]
            finding.set_result(None)

    async def _found_or_new(self, asked: RequestKey, make: Make, relay: Relay | None) -> Repeated:
        while True:
            earlier = await self._store.idempotency.find(asked)
            if earlier is not None and earlier.created_at > self._clock.now_ms() - _KEPT_MS:
                found = await self._repeated(asked, earlier, relay)
                if found is not None:
                    return found
            try:
                view = await self._submission.submit(await make(), relay, asked, earlier.job_id if earlier else None)
            except UniqueViolationError:
                # Another process was a moment faster.
                continue
            return Repeated(view, relay, is_earlier=False)

    async def _repeated(self, asked: RequestKey, earlier: Earlier, relay: Relay | None) -> Repeated | None:
        if earlier.fingerprint != asked.fingerprint:
            raise IdempotencyMismatchError(
                f"Idempotency-Key: {asked.key!r} was used for another request; use a new key for each"
            )
        while True:
            standing = await self._store.queries.standing(earlier.job_id)
            if standing is None or standing.job.contents_deleted_at is not None:
                # Its key went with it.
                return None
            if standing.job.is_final and standing.job.error_code in _TRIED_AGAIN:
                return None
            view = await self._views.viewed(standing)
            live = self._ledger.relays.get(earlier.job_id)
            if live is not None and live.is_worth_retrying:
                return None
            if live is None or not live.is_abandoned or live.is_ended:
                break
            # Its only caller has just left, and it is being cancelled.
            await live.changed()
        return Repeated(view, await self._relay_of(view.job) if relay is not None else None, is_earlier=True)

    async def _relay_of(self, job: Job) -> Relay | StoredReply | None:
        """Counts as read from now on, so that nobody else's leaving ends it."""
        live = self._ledger.relays.get(job.id)
        if live is None and job.is_final:
            return await kept_reply(self._store.idempotency, job)
        if (
            live is None
            and job.status == Status.QUEUED
            and job.id not in self._ledger.running
            and self._store.is_exclusive
        ):
            # It is left over from before a restart; when its turn comes, its reply is heard here.
            live = self._ledger.relays[job.id] = Relay(is_kept=True, readers=0)
        if live is not None:
            live.readers += 1
        return live

    async def prune_repeats(self, before: int) -> int:
        """Forget a batch of keys that are older than then; how many."""
        return await self._store.idempotency.prune(before)
