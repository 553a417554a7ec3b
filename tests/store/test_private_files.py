"""What the database keeps on disk is for the service's own user, also where an earlier version made it."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.config import DatabaseConfig
from service.errors import DatabaseUnusableError
from service.store.database import Statement
from tests.support.databases import Place

FILES = {"queue.db", "queue.db-wal", "queue.db-shm", "queue.db.lock"}


@pytest.fixture(autouse=True)
def open_to_all() -> Iterator[None]:
    """Whoever starts the service has told the system to close nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def modes_while_open(path: Path) -> dict[str, int]:
    """The modes of all files in the folder while the database is open and written to."""
    async with Place(DatabaseConfig(path=path)).opened() as database:
        await database.prepare()
        await database.write(Statement("DELETE FROM settings", {}))
        return {one.name: mode(one) for one in path.resolve().parent.iterdir()}


async def test_new_files_and_folders_are_for_the_services_own_user(tmp_path: Path) -> None:
    made = tmp_path / "new" / "data"
    assert await modes_while_open(made / "queue.db") == dict.fromkeys(FILES, 0o600)
    assert (mode(made), mode(made.parent)) == (0o700, 0o700)


async def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    await modes_while_open(tmp_path / "queue.db")
    assert mode(tmp_path) == 0o755


@pytest.mark.parametrize("is_link", [False, True])
async def test_files_that_others_could_read_are_mended_and_told_of(
    tmp_path: Path, is_link: bool, caplog: pytest.LogCaptureFixture
) -> None:
    real = tmp_path / "real"
    real.mkdir()
    await modes_while_open(real / "queue.db")
    (real / "queue.db").chmod(0o644)
    (real / "queue.db.lock").chmod(0o666)
    for left in ("queue.db-wal", "queue.db-shm"):
        (real / left).touch(mode=0o664)
    path = real / "queue.db"
    if is_link:
        path = tmp_path / "link.db"
        path.symlink_to(real / "queue.db")
    with caplog.at_level(logging.WARNING):
        found = await modes_while_open(path)
    assert {found[name] for name in FILES - ({"queue.db.lock"} if is_link else set())} == {0o600}
    assert len([line for line in caplog.messages if "could be opened by other users" in line]) == 3 + (not is_link)


@pytest.mark.parametrize("is_link", [False, True])
async def test_what_stands_where_the_lock_should_be_stays_as_it_is(tmp_path: Path, is_link: bool) -> None:
    theirs = tmp_path / ("theirs" if is_link else "queue.db.lock")
    theirs.write_bytes(b"[[package]]\xff" if not is_link else b"")
    if is_link:
        (tmp_path / "queue.db.lock").symlink_to(theirs)
    before = theirs.read_bytes()
    with pytest.raises(DatabaseUnusableError, match="choose"):
        await modes_while_open(tmp_path / "queue.db")
    assert theirs.read_bytes() == before


async def test_a_folder_that_others_may_write_to_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder_mode, warnings in ((0o1777, 1), (0o770, 0)):
        tmp_path.chmod(folder_mode)
        caplog.clear()
        await modes_while_open(tmp_path / "queue.db")
        assert len([line for line in caplog.messages if "others may put files beside" in line]) == warnings
