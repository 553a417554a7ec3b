"""The audit on every database: with the action or not at all, bounded, and pruned."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from service.audit import COMMAND_LINE, START, Action, Actor, ActorKind, Audit, audit_row
from service.clock import Clock
from service.errors import NotFoundError, ServiceError
from service.key import NewKey, Role
from service.keys.keyring import Keyring
from service.store.audit import AuditFilter, AuditRow, AuditStore
from service.store.database import Database, Statement
from service.store.keys import KeyStore
from tests.support.checkout import ROOT

EVERYTHING = AuditFilter()
ADMIN = Actor(ActorKind.KEY, "k1", "boss\0", "anna\ud800", "2001:db8::1")
NOW = 1_800_000_000_000
DAY = 86_400_000


async def rows(database: Database, which: AuditFilter = EVERYTHING) -> list[AuditRow]:
    """What is written down, oldest first."""
    found, _ = await AuditStore(database).page(which, 1000, 0)
    return [entry.row for entry in reversed(found)]


async def refuse_audit(database: Database) -> None:
    """From now on the table takes nothing."""
    if database.is_shared:
        await database.write(Statement("ALTER TABLE audit ADD CHECK (seq < 0) NOT VALID", {}))
    else:
        trigger = "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END"
        await database.write(Statement(trigger, {}))


async def test_what_is_done_to_a_key_is_written_down_with_it(database: Database) -> None:
    keys = await Keyring.open(KeyStore(database), Clock())
    key, text = await keys.create(NewKey("new", Role.ADMIN), by=ADMIN)
    for demo in ("the-first-text-of-it", "the-other-text-of-it", ""):
        await keys.keep_demo_key(Role.USER, demo)
    await keys.revoke(key.id, keeps_jobs=True, by=COMMAND_LINE)
    with pytest.raises(NotFoundError):
        await keys.revoke("nobody", keeps_jobs=True, by=COMMAND_LINE)
    found = await rows(database)
    assert [(row.action, row.actor, row.subject_name, row.details) for row in found] == [
        ("key_created", "key", "new", '{"role": "admin"}'),
        ("key_created", "start", "demo user", '{"role": "user"}'),
        ("key_changed", "start", "demo user", '{"role": "user"}'),
        ("key_revoked", "start", "demo user", '{"keep_jobs": true}'),
        ("key_revoked", "command line", "new", '{"keep_jobs": true}'),
    ]
    first = found[0]
    assert (first.key_id, first.key_name, first.person, first.address) == ("k1", "boss�", "anna�", "2001:db8::1")
    assert {row.subject for row in (first, found[-1])} == {key.id}
    assert text not in str(found)


async def test_an_action_that_cannot_be_written_down_is_not_done(database: Database) -> None:
    keys = await Keyring.open(KeyStore(database), Clock())
    key, _ = await keys.create(NewKey("old"), by=START)
    await refuse_audit(database)
    with pytest.raises(ServiceError):
        await keys.create(NewKey("new"), by=START)
    with pytest.raises(ServiceError):
        await keys.revoke(key.id, keeps_jobs=False, by=START)
    with pytest.raises(ServiceError):
        await keys.keep_demo_key(Role.USER, "the-text-of-a-demo-key")
    assert [one for _, one in await KeyStore(database).all()] == [key]
    assert (await Keyring.open(KeyStore(database), Clock())).is_good(key)


async def test_an_action_that_is_not_done_is_not_written_down(database: Database) -> None:
    store = KeyStore(database)
    key, _ = await (await Keyring.open(store, Clock())).create(NewKey("one"), by=START)
    with pytest.raises(ServiceError):
        await store.insert(key, "another hash", "v", audit_row(Action.KEY_CREATED, START, NOW, key.id))
    assert len(await rows(database)) == 1


DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from service.audit import START
from service.clock import Clock
from service.key import NewKey
from service.keys.keyring import Keyring
from service.store.database import Statement
from service.store.keys import KeyStore
from service.store.sqlite.database import SqliteDatabase

async def die():
    database = await SqliteDatabase.open(Path(sys.argv[1]))
    keys = await Keyring.open(KeyStore(database), Clock())
    await keys.create(NewKey("stored"), by=START)
    await database._writer.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    await database.write(Statement("CREATE TRIGGER dies BEFORE INSERT ON audit BEGIN SELECT die(); END", {}))
    await keys.create(NewKey("lost"), by=START)

asyncio.run(die())
"""


def test_a_crash_between_an_action_and_its_row_leaves_neither(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    died = subprocess.run([sys.executable, "-c", DYING, str(path)], cwd=ROOT, check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM keys").fetchall() == [("stored",)]
        assert database.execute("SELECT subject_name FROM audit").fetchall() == [("stored",)]


async def test_while_the_table_takes_nothing_rows_wait_and_none_is_written_twice(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    audit = Audit(AuditStore(database), Clock())
    await audit.record(Action.BACKEND_DRAINED, ADMIN, "one")
    await database.write(Statement("ALTER TABLE audit RENAME TO away", {}))
    await audit.record(Action.BACKEND_RESUMED, ADMIN, "one")
    for _ in range(3):
        audit.note_failed_sign_in("192.0.2.1", "unknown")
        with pytest.raises(ServiceError):
            await audit.page(EVERYTHING, 10, 0)
    assert len([one for one in caplog.messages if "could not be written down yet" in one]) == 1
    await database.write(Statement("ALTER TABLE away RENAME TO audit", {}))
    found, total = await audit.page(EVERYTHING, 10, 0)
    assert [(entry.row.action, entry.row.times) for entry in found] == [
        ("sign_in_failed", 3),
        ("backend_resumed", 1),
        ("backend_drained", 1),
    ]
    assert total == 3
    assert (await audit.page(EVERYTHING, 10, 0))[1] == 3


async def test_a_flood_of_failed_sign_ins_is_counted_and_fills_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="service.audit")
    clock = Clock()
    clock.not_before(4_000_000_000_000)
    audit = Audit(AuditStore(database), clock)
    for round_number in range(3):
        for number in range(300):
            audit.note_failed_sign_in(f"192.0.2.{number % 100}", "unknown")
        if round_number < 2:
            await audit.page(EVERYTHING, 1, 0)
    await audit.page(EVERYTHING, 1, 0)
    found = await rows(database)
    assert len(found) == 21
    assert {row.address: row.times for row in found}["others"] == 3 * 300 - 20 * 9
    assert {row.times for row in found if row.address != "others"} == {9}
    assert len(caplog.records) == 21
    clock.not_before(4_000_000_060_000)
    audit.note_failed_sign_in("192.0.2.99", "unknown")
    await audit.page(EVERYTHING, 1, 0)
    assert [row.address for row in (await rows(database))[21:]] == ["192.0.2.99"]


async def test_old_rows_go_and_of_failed_sign_ins_the_oldest_beyond_a_number(database: Database) -> None:
    store = AuditStore(database)
    failed = [
        audit_row(Action.SIGN_IN_FAILED, Actor(ActorKind.ADDRESS, address=f"192.0.2.{number}"), NOW)
        for number in range(10)
    ]
    made = audit_row(Action.KEY_CREATED, START, NOW)
    await store.append([made._replace(at=NOW - DAY), made, *failed])
    assert await store.prune(NOW - 1, kept_failures=4) == 7
    assert await store.prune(NOW - 1, kept_failures=4) == 0
    left = await rows(database)
    assert [row.action for row in left] == ["key_created", *["sign_in_failed"] * 4]
    assert [row.address for row in left[1:]] == [row.address for row in failed[6:]]


async def test_filters_and_pages_find_what_they_should(database: Database) -> None:
    store = AuditStore(database)
    made = [
        audit_row(Action.KEY_CREATED, ADMIN, NOW + number, f"k{number}") if number % 2 else
        audit_row(Action.BACKEND_DRAINED, START, NOW + number, "box")
        for number in range(8)
    ]  # fmt: skip
    await store.append(made)
    assert await rows(database) == [
        row._replace(key_name=row.key_name and "boss�", person=row.person and "anna�") for row in made
    ]
    assert [row.at - NOW for row in await rows(database, AuditFilter(action="backend_drained"))] == [0, 2, 4, 6]
    assert len(await rows(database, AuditFilter(key_id="k1"))) == 4
    assert len(await rows(database, AuditFilter(key_id="box"))) == 4
    assert [row.at - NOW for row in await rows(database, AuditFilter(since=NOW + 2, until=NOW + 4))] == [2, 3]
    page, total = await store.page(EVERYTHING, 3, 3)
    assert ([entry.row.at - NOW for entry in page], total) == ([4, 3, 2], 8)
    older, total = await store.page(AuditFilter(before=page[-1].seq), 3, 0)
    assert ([entry.row.at - NOW for entry in older], total) == ([1, 0], 2)
