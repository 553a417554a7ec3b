"""Replies that are kept for whoever repeats a request: small ones whole, large ones in pieces that are compressed,
written and read one after the other.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable

from multidict import CIMultiDict

from service.errors import CONTENTS_DELETED, ContentsDeletedError
from service.job import Job, Status
from service.jobs.records import conclude
from service.live.relay import READ_BYTES, Head, Relay
from service.store.idempotency import IdempotencyStore, KeptReply

_LARGE_BYTES = 64 * 1024
_WHOLE_BYTES = 1024 * 1024
"""A reply up to this size is kept in one piece, in the same commit as its outcome."""
_PIECE_BYTES = 512 * 1024
"""Of a compressed reply, roughly."""
_QUICKLY = 1
"""zlib's level for large replies: vectors hardly become smaller at any other, which take three to six times as long."""


class StoredReply:
    """A large reply as it was given, to be read from the store."""

    def __init__(self, store: IdempotencyStore, job_id: str, kept: KeptReply) -> None:
        self._store = store
        self._job_id = job_id
        self._pieces = kept.pieces
        self.head = Head(kept.status, CIMultiDict(kept.headers))
        self.size = kept.size

    async def read(self) -> AsyncIterator[bytes]:
        """The body, in pieces of a bounded size. It breaks off, by ConnectionError, where it is deleted meanwhile."""
        unpacking = zlib.decompressobj()
        for number in range(self._pieces):
            packed = await self._store.piece(self._job_id, number)
            if packed is None:
                raise ConnectionError("the reply was kept no longer")
            while packed:
                if data := await asyncio.to_thread(unpacking.decompress, packed, READ_BYTES):
                    yield data
                packed = unpacking.unconsumed_tail
        if rest := unpacking.flush():
            yield rest


async def keep_reply(store: IdempotencyStore, job_id: str, relay: Relay) -> KeptReply | None:
    """The backend's reply as it is to be stored with its job's outcome, from a relay that has kept it; None where there
    is none, or only a part of it. The pieces of a large one are on disk when this returns. Raises CannotStoreError.
    """
    if relay.head is None or relay.failure is not None or relay.is_worth_retrying:
        return None
    status, headers = relay.head.status, tuple(relay.head.headers.items())
    if relay.size <= _WHOLE_BYTES:
        return KeptReply(status, headers, await _packed(zlib.compress, b"".join(relay.pieces())))
    packing, packed, number = zlib.compressobj(_QUICKLY), bytearray(), 0
    for piece in relay.pieces():
        packed += await asyncio.to_thread(packing.compress, piece)
        if len(packed) >= _PIECE_BYTES:
            await store.keep_piece(job_id, number, bytes(packed))
            packed.clear()
            number += 1
    packed += packing.flush()
    await store.keep_piece(job_id, number, bytes(packed))
    return KeptReply(status, headers, b"", pieces=number + 1, size=relay.size)


async def kept_reply(store: IdempotencyStore, job: Job) -> Relay | StoredReply:
    """The reply of a finished job as it was given, or how it ended where there was none."""
    kept = await store.reply(job.id)
    if kept is not None and kept.pieces:
        return StoredReply(store, job.id, kept)
    relay = Relay(is_kept=True)
    if kept is None and job.status == Status.COMPLETED:
        # It was deleted a moment ago.
        relay.fail(ContentsDeletedError(CONTENTS_DELETED))
    elif kept is None:
        conclude(relay, job)
    else:
        relay.begin(Head(kept.status, CIMultiDict(kept.headers)))
        relay.append(await _packed(zlib.decompress, kept.body))
        relay.end()
    return relay


async def _packed(pack: Callable[[bytes], bytes], data: bytes) -> bytes:
    """Off the loop where it takes long."""
    return pack(data) if len(data) < _LARGE_BYTES else await asyncio.to_thread(pack, data)
