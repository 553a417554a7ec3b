"""Idempotency keys, the jobs that were made with them, and the replies that are kept for them."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import NamedTuple

from service.store.database import Database, Insert, Statement, Update

_FIND = "SELECT fingerprint, job_id, created_at FROM idempotency WHERE owner = :owner AND key = :key"
_INSERT = Insert("idempotency", ("owner", "key", "fingerprint", "job_id", "created_at"))
_FORGET = "DELETE FROM idempotency WHERE owner = :owner AND key = :key AND job_id = :job_id"
_KEPT = ("reply_status", "reply_headers", "reply_pieces", "reply_size", "reply_body")
_KEEP = Update("idempotency", _KEPT, key="job_id")
# None for a job that was made without a key, or whose contents another process is deleting at this moment.
_KEEP_PIECE = """
    WITH kept AS MATERIALIZED (SELECT job_id FROM idempotency WHERE job_id = :job_id LIMIT 1 {share_lock})
    INSERT INTO reply_pieces (job_id, number, data)
    SELECT job_id, CAST(:number AS BIGINT), CAST(:data AS TEXT) FROM kept WHERE job_id > ''
    ON CONFLICT (job_id, number) DO UPDATE SET data = excluded.data
"""
_PIECE = "SELECT data FROM reply_pieces WHERE job_id = :job_id AND number = :number"
_REPLY = """
    SELECT reply_status, reply_headers, reply_body, reply_pieces, reply_size FROM idempotency
    WHERE job_id = :job_id AND reply_status IS NOT NULL
"""
_PRUNE = """
    DELETE FROM idempotency WHERE (owner, key) IN (
        SELECT owner, key FROM idempotency WHERE created_at < :before ORDER BY created_at LIMIT :most
    ) RETURNING job_id
"""


_PRUNE_PIECES = """
    DELETE FROM reply_pieces WHERE NOT EXISTS (SELECT 1 FROM idempotency WHERE idempotency.job_id = reply_pieces.job_id)
"""


class RequestKey(NamedTuple):
    """What a repeated request is recognised by: the key, its owner, and a fingerprint of what was asked with it."""

    owner: str
    key: str
    fingerprint: str


class Earlier(NamedTuple):
    """The request that was made earlier with the same key."""

    fingerprint: str
    job_id: str
    created_at: int


class KeptReply(NamedTuple):
    """A backend's reply, its body compressed with zlib: in one piece, or in as many as are named."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    pieces: int = 0
    """How many pieces of it are kept by themselves; 0: the body is here."""
    size: int = 0
    """Bytes of the body, when it is in pieces and not compressed."""


class IdempotencyStore:
    """Idempotency keys in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keep_piece = _KEEP_PIECE.replace("{share_lock}", database.share_lock)

    async def find(self, asked: RequestKey) -> Earlier | None:
        """The earlier request with this key."""
        rows = await self._database.read(_FIND, {"owner": asked.owner, "key": asked.key})
        return Earlier(*rows[0]) if rows else None

    async def reply(self, job_id: str) -> KeptReply | None:
        """The reply that is kept for a job."""
        rows = await self._database.read(_REPLY, {"job_id": job_id})
        if not rows:
            return None
        status, headers, body, pieces, size = rows[0]
        told = tuple((name, value) for name, value in json.loads(headers))
        return KeptReply(status, told, b64decode(body), pieces or 0, size or 0)

    async def keep_piece(self, job_id: str, number: int, data: bytes) -> None:
        """Store a piece of a reply, by itself, so that no other write waits long for it. It counts once the reply is
        kept with its job's outcome. Raises CannotStoreError.
        """
        row = {"job_id": job_id, "number": number, "data": b64encode(data).decode()}
        await self._database.write(Statement(self._keep_piece, row), is_urgent=False)

    async def piece(self, job_id: str, number: int) -> bytes | None:
        """A piece of a kept reply; None when it is deleted."""
        rows = await self._database.read(_PIECE, {"job_id": job_id, "number": number})
        return b64decode(rows[0][0]) if rows else None

    async def prune(self, before: int, most: int = 500) -> int:
        """Delete a batch of the keys that are older than ``before`` (milliseconds since the epoch), and the pieces of
        replies that have no key; how many keys it was.
        """
        rows, _ = await self._database.write(
            Statement(_PRUNE, {"before": before, "most": most}), Statement(_PRUNE_PIECES, {})
        )
        return len(rows)


def remember(asked: RequestKey, job_id: str, now: int, instead_of: str | None) -> tuple[Statement, ...]:
    """The statements that store a key with its job, in the job's own transaction. The write raises UniqueViolationError
    when another process was first. ``instead_of`` is the job that the key stood for until now.
    """
    row = {**asked._asdict(), "job_id": job_id, "created_at": now}
    inserted = Statement(_INSERT, row)
    if instead_of is None:
        return (inserted,)
    return Statement(_FORGET, {"owner": asked.owner, "key": asked.key, "job_id": instead_of}), inserted


def keep(job_id: str, reply: KeptReply) -> Statement:
    """The statement that stores a reply, in the outcome's own transaction. It changes nothing for a job that was made
    without a key.
    """
    row = {
        "job_id": job_id,
        "reply_status": reply.status,
        "reply_headers": json.dumps(reply.headers),
        "reply_pieces": reply.pieces,
        "reply_size": reply.size,
        "reply_body": b64encode(reply.body).decode(),
    }
    return Statement(_KEEP, row)
