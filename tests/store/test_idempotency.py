"""Idempotency keys in the database: stored with their job, one job a key, replies kept for a time."""

from __future__ import annotations

import zlib

import pytest

from service.errors import UniqueViolationError
from service.job import Outcome, Status, new_job_id
from service.store.idempotency import KeptReply, RequestKey, remember
from service.store.jobs import JobStore
from tests.support.store_jobs import LINE, NOW, inserted, look, new_job

ASKED = RequestKey("somebody", "6b1c2f", "fingerprint")
REPLY = KeptReply(200, (("Content-Type", "application/x-ndjson"), ("X-Umlaut", "ä")), zlib.compress(b"\0\xffbytes"))


async def asked_job(store: JobStore, asked: RequestKey = ASKED, instead_of: str | None = None, now: int = NOW) -> str:
    """The id of a new job that was asked for with a key."""
    job_id = new_job_id(now)
    await inserted(store, new_job(), job_id, now, also=remember(asked, job_id, now, instead_of))
    return job_id


async def test_a_key_is_found_with_its_job(store: JobStore) -> None:
    assert await store.idempotency.find(ASKED) is None
    job_id = await asked_job(store)
    assert await store.idempotency.find(ASKED) == (ASKED.fingerprint, job_id, NOW)
    assert await store.idempotency.find(ASKED._replace(owner="somebody else")) is None
    assert await store.idempotency.find(ASKED._replace(key="another")) is None
    assert await store.idempotency.reply(job_id) is None


async def test_a_second_job_for_a_key_is_not_stored(store: JobStore, other: JobStore) -> None:
    job_id = await asked_job(store)
    with pytest.raises(UniqueViolationError):
        await asked_job(other)
    found = await other.idempotency.find(ASKED)
    assert found is not None
    assert found.job_id == job_id
    assert len(await store.claim(LINE, 5, NOW)) == 1


async def test_a_key_may_stand_for_another_job_from_now_on(store: JobStore) -> None:
    first = await asked_job(store)
    second = await asked_job(store, ASKED._replace(fingerprint="other"), instead_of=first)
    assert await store.idempotency.find(ASKED) == ("other", second, NOW)
    with pytest.raises(UniqueViolationError):
        await asked_job(store, instead_of=first)


async def test_a_reply_is_kept_with_the_outcome_of_a_job_that_has_a_key(store: JobStore) -> None:
    job_id = await asked_job(store)
    await inserted(store, new_job(), new_job_id(NOW))
    for claimed in await store.claim(LINE, 2, NOW):
        assert await store.finish(claimed.job, Outcome(Status.COMPLETED), NOW, REPLY) is not None
        assert (await look(store, claimed.job)).status == "completed"
        kept = await store.idempotency.reply(claimed.job.id)
        assert kept == (REPLY if claimed.job.id == job_id else None)


async def test_old_keys_are_forgotten_and_the_jobs_stay(store: JobStore) -> None:
    for number in range(3):
        await asked_job(store, ASKED._replace(key=str(number)), now=NOW + number)
    assert await store.idempotency.prune(NOW + 2, most=1) == 1
    assert await store.idempotency.prune(NOW + 2) == 1
    assert await store.idempotency.find(ASKED._replace(key="1")) is None
    assert await store.idempotency.find(ASKED._replace(key="2")) is not None
    assert len(await store.claim(LINE, 5, NOW)) == 3


async def test_the_pieces_of_a_reply_are_kept_with_its_key_and_no_longer(store: JobStore) -> None:
    ids = [await asked_job(store, ASKED._replace(key=str(number)), now=NOW + number) for number in range(2)]
    reply = REPLY._replace(body=b"", pieces=2, size=1_000)
    without_key = await inserted(store, new_job(), new_job_id(NOW))
    for job_id in (*ids, without_key.id):
        # A process that did not get to the end of it may have begun before.
        for data in (b"begun", b"\0\xff"):
            await store.idempotency.keep_piece(job_id, 0, data)
        await store.idempotency.keep_piece(job_id, 1, b"the rest")
    for claimed in await store.claim(LINE, 3, NOW):
        await store.finish(claimed.job, Outcome(Status.COMPLETED), NOW, reply)
    for job_id in ids:
        assert await store.idempotency.reply(job_id) == reply
        assert [await store.idempotency.piece(job_id, number) for number in range(3)] == [b"\0\xff", b"the rest", None]
    assert await store.idempotency.piece(without_key.id, 0) is None
    await store.idempotency.prune(NOW + 1)
    assert [await store.idempotency.piece(job_id, 0) for job_id in ids] == [None, b"\0\xff"]
