"""The database's files are for the service's own user: they hold what people asked, and the secret that signs tokens.

Other versions, other programs or a copy may have left them readable; that is mended.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from pathlib import Path
from typing import IO

from service.errors import DatabaseUnusableError

_log = logging.getLogger(__name__)

_OTHERS = 0o077
_LONGEST_PID = 32


def take_lock(path: Path) -> IO[str]:
    """Take the database for this process; its folder and file are made where they are missing. The lock is ``flock``'s,
    so that a killed process leaves no stale lock behind.

    Raises DatabaseUnusableError when another process holds it, when it cannot be written, and when the lock's place is
    taken by something else, which stays as it is.
    """
    lock_path = path.with_name(path.name + ".lock")
    try:
        _make_folder(path.parent)
        path.touch(mode=0o600)
        # In a folder that others may write to, a link could lead to any file of ours.
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        lock = os.fdopen(descriptor, "a+", errors="replace")
    except OSError as error:
        raise DatabaseUnusableError(
            f"database {path}: {error.strerror or error}; "
            "choose a folder that can be written to (database.path or OLLAMA_PROXY_DB)"
        ) from error
    lock.seek(0)
    holder = lock.read(_LONGEST_PID).strip()
    if holder and not holder.isdecimal():
        lock.close()
        raise DatabaseUnusableError(
            f"database {path}: {lock_path.name} beside it is no lock of Corral's; "
            "move it away or choose another file (database.path or OLLAMA_PROXY_DB)"
        )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise DatabaseUnusableError(
            f"database {path}: another process holds it (pid {holder or 'unknown'}); "
            "stop that one or choose another file (database.path or OLLAMA_PROXY_DB)"
        ) from error
    _hide(lock_path)
    _warn_of_shared(path.parent)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def hide_from_others(path: Path) -> None:
    """Take the files of a database, which is known to be one, from everybody else."""
    # SQLite keeps the others beside the file itself, wherever a link leads.
    real = path.resolve()
    for one in (real, real.with_name(f"{real.name}-wal"), real.with_name(f"{real.name}-shm")):
        _hide(one)


def _make_folder(folder: Path) -> None:
    """Make it, and those above it. A folder that is there already is somebody's, and stays as it is."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)


def _warn_of_shared(folder: Path) -> None:
    if folder.stat().st_mode & stat.S_IWOTH:
        _log.warning(
            "others may put files beside the database in %s, which would be taken for its own; use a folder of its own",
            folder,
        )


def _hide(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & _OTHERS:
            path.chmod(mode & ~_OTHERS)
            _log.warning("%s could be opened by other users (mode %04o); now it cannot", path, mode)
    except FileNotFoundError:
        pass
    except OSError as error:
        _log.warning("%s may be opened by other users, and this cannot be changed: %s", path, error)
