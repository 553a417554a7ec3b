"""A request that says with an idempotency key that it may be repeated: however often it comes, it is one job."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from multidict import CIMultiDict

from service.errors import IdempotencyMismatchError, UniqueViolationError
from service.job import Job, NewJob, Status
from service.jobs.records import View, conclude
from service.jobs.submission import Submission
from service.live.relay import Head, Relay
from service.store.idempotency import Earlier, KeptReply, RequestKey

KEPT_DAYS = 1.0
_KEPT_MS = int(KEPT_DAYS * 86_400_000)
_LARGE_BYTES = 64 * 1024

Make = Callable[[], Awaitable[NewJob]]
"""Makes the job of a request that is new."""

_TRIED_AGAIN = ("disconnected", "backend_busy")
"""What ended only because its caller was gone, or because nobody had time: who comes again wants an answer."""


class Repeated(NamedTuple):
    """The job of a request with a key."""

    view: View
    relay: Relay | None
    """Its reply, where one was asked for and this process has it or can still get it."""
    is_earlier: bool
    """It is the job of an earlier request."""


class Repeats(Submission):
    """Submit once."""

    async def submit_once(self, asked: RequestKey, make: Make, relay: Relay | None = None) -> Repeated:
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
                view = await self.submit(await make(), relay, asked, earlier.job_id if earlier else None)
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
            if standing is None or (standing.job.is_final and standing.job.error_code in _TRIED_AGAIN):
                return None
            view = await self._viewed(standing)
            live = self._relays.get(earlier.job_id)
            if live is not None and live.is_worth_retrying:
                return None
            if live is None or not live.is_abandoned or live.is_ended:
                break
            # Its only caller has just left, and it is being cancelled.
            await live.changed()
        return Repeated(view, await self._relay_of(view.job) if relay is not None else None, is_earlier=True)

    async def _relay_of(self, job: Job) -> Relay | None:
        """Counts as read from now on, so that nobody else's leaving ends it."""
        live = self._relays.get(job.id)
        if live is None and job.is_final:
            return await self.kept_reply(job)
        if live is None and job.status == Status.QUEUED and job.id not in self._running and self._store.is_exclusive:
            # It is left over from before a restart; when its turn comes, its reply is heard here.
            live = self._relays[job.id] = Relay(is_kept=True, readers=0)
        if live is not None:
            live.readers += 1
        return live

    async def kept_reply(self, job: Job) -> Relay:
        """The reply of a finished job as it was given, or how it ended where there was none."""
        relay = Relay(is_kept=True)
        kept = await self._store.idempotency.reply(job.id)
        if kept is None:
            conclude(relay, job)
        else:
            relay.begin(Head(kept.status, CIMultiDict(kept.headers)))
            relay.append(await _packed(zlib.decompress, kept.body))
            relay.end()
        return relay

    async def prune_repeats(self, before: int) -> int:
        """Forget a batch of keys that are older than then; how many."""
        return await self._store.idempotency.prune(before)


async def reply_to_keep(relay: Relay) -> KeptReply | None:
    """The backend's reply for who repeats the request, from a relay that has kept it; None where there is none, or only
    a part of it.
    """
    if relay.head is None or relay.failure is not None or relay.is_worth_retrying:
        return None
    body = await _packed(zlib.compress, relay.read(0)[0])
    return KeptReply(relay.head.status, tuple(relay.head.headers.items()), body)


async def _packed(pack: Callable[[bytes], bytes], data: bytes) -> bytes:
    """Off the loop where it takes long: nobody else waits for megabytes."""
    return pack(data) if len(data) < _LARGE_BYTES else await asyncio.to_thread(pack, data)
