"""A revoked key ends what it has asked for."""

from __future__ import annotations

import asyncio
import logging

from service.audit import Actor
from service.errors import ServiceError
from service.jobs import Jobs
from service.jobs.cancelling import UNFINISHED
from service.jobs.submission import REVOKED
from service.key import Key
from service.keys.keyring import Keyring
from service.store.job_filters import Filter

_log = logging.getLogger(__name__)

_AGAIN_SECONDS = 2.0
"""When to look once more: a job may have come meanwhile to a process that did not know of the revocation yet."""
_MOST_PASSES = 10
"""Through the jobs of a key that another process still believes in, until one finds nothing."""


class Revocations:
    """Revokes keys, and ends the jobs of those that others have revoked. ``others_look_seconds``: how often the
    processes that share the database look for revoked keys; 0 where none does.
    """

    def __init__(self, keys: Keyring, jobs: Jobs, others_look_seconds: float) -> None:
        self._keys = keys
        self._jobs = jobs
        self._others_look_seconds = others_look_seconds
        self._changed = asyncio.Event()
        keys.changed.connect(self._changed.set)

    async def revoke(self, key_id: str, *, keeps_jobs: bool, by: Actor) -> Key:
        """Let nobody use the key from now on. Unless it ``keeps_jobs``, none of them is queued or runs any more when
        this returns.

        Raises NotFoundError, CannotStoreError.
        """
        key = await self._keys.revoke(key_id, keeps_jobs=keeps_jobs, by=by)
        if not keeps_jobs:
            others_know_at = asyncio.get_running_loop().time() + self._others_look_seconds
            # What was admitted before may still be on its way to the disk, where nothing finds it.
            await self._jobs.submission.until_earlier_is_stored()
            await self._end_jobs(key)
            if self._others_look_seconds:
                await asyncio.sleep(others_know_at - asyncio.get_running_loop().time())
                await self._end_what_others_took(key)
        return key

    async def keep_ending(self) -> None:
        """End the jobs of keys that another process has revoked, or this one before it was killed; never returns."""
        while True:
            try:
                await self._end_all()
                await asyncio.sleep(_AGAIN_SECONDS)
                await self._end_all()
            except ServiceError as error:
                _log.warning("the jobs of revoked keys could not be ended: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            await self._changed.wait()
            self._changed.clear()

    async def _end_all(self) -> None:
        await self._jobs.submission.until_earlier_is_stored()
        for key_id in await self._jobs.views.keys_of_unfinished():
            key = self._keys.get(key_id)
            if key is not None and not key.is_active and not key.keeps_jobs:
                await self._end_jobs(key)

    async def _end_what_others_took(self, key: Key) -> None:
        """End the jobs that came to other processes before they knew of the revocation."""
        for _ in range(_MOST_PASSES):
            if not await self._end_jobs(key):
                return

    async def _end_jobs(self, key: Key) -> int:
        """How many were ended."""
        ended = await self._jobs.cancelling.cancel(Filter(key_id=key.id), UNFINISHED, REVOKED)
        if ended:
            _log.info("%d jobs of the revoked key %s %r were ended", ended, key.id, key.name)
        return ended
