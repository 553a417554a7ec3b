"""What a run has done so far, beside its output: with it a run that was interrupted goes on."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from corral.batch.lines import Outcome
from corral.errors import ConfigurationError, CorralError

VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lines (place INTEGER PRIMARY KEY, job TEXT, outcome TEXT);
"""


class JournalError(CorralError):
    """The journal cannot be written, as on a full disk. What was asked so far is not lost."""


class Place(NamedTuple):
    """How far the output has come: whole lines, and where both files end with them."""

    lines: int = 0
    output_bytes: int = 0
    failures_bytes: int = 0
    failed: int = 0
    mark: str = ""
    """Of the output's last bytes, by which it is known again."""


class Known(NamedTuple):
    """A line of which something is known: its job, and whether its outcome is."""

    place: int
    job: str | None
    has_outcome: bool


class Journal:
    """A SQLite file that one run holds. Its calls block; they belong into a thread, one at a time."""

    def __init__(self, path: Path) -> None:
        """Open it, and keep everybody else out until the end of the process. Raises ConfigurationError where another
        run has it, or where it is something else.
        """
        self.path = path
        try:
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise _refusal(path, error) from error
        try:
            # The lock is held from the first statement to the end of the connection, and dies with the process.
            for statement in ("PRAGMA locking_mode=EXCLUSIVE", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"):
                self._database.execute(statement)
            self._database.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
        except sqlite3.Error as error:
            self._database.close()
            raise _refusal(path, error) from error

    def facts(self) -> dict[str, Any]:
        """What the run was begun with; nothing for a new journal."""
        with _translated(self.path):
            return {name: json.loads(value) for name, value in self._database.execute("SELECT name, value FROM facts")}

    @property
    def is_untouched(self) -> bool:
        """Whether nothing came of the run: no job was accepted, and no line answered."""
        return next(self.known(), None) is None and not {"tally", "place"} & self.facts().keys()

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Note with what the run is begun, and the name from which its idempotency keys are made."""
        self._write_facts({"version": VERSION, "run": uuid.uuid4().hex, **facts})

    def place(self) -> Place:
        """How far the output has come."""
        found = self.facts().get("place")
        return Place(*found) if found else Place()

    def known(self) -> Iterator[Known]:
        """Every line of which something is known, in their order."""
        with _translated(self.path):
            for place, job, has_outcome in self._database.execute(
                "SELECT place, job, outcome IS NOT NULL FROM lines ORDER BY place"
            ):
                yield Known(place, job, bool(has_outcome))

    def write(
        self, jobs: Iterable[tuple[int, str]], outcomes: Iterable[tuple[int, Outcome]], tally: Mapping[str, Any]
    ) -> None:
        """Note jobs that were accepted and outcomes that have come, and what they come to: all or nothing."""
        with self._transaction():
            self._put({"tally": tally})
            self._database.executemany(
                "INSERT INTO lines (place, job) VALUES (?, ?) ON CONFLICT (place) DO UPDATE SET job = excluded.job",
                jobs,
            )
            self._database.executemany(
                "INSERT INTO lines (place, outcome) VALUES (?, ?)"
                " ON CONFLICT (place) DO UPDATE SET outcome = excluded.outcome",
                ((place, _packed(outcome)) for place, outcome in outcomes),
            )

    def outcome(self, place: int) -> Outcome | None:
        """What became of a line; None while that is not known."""
        with _translated(self.path):
            found = self._database.execute("SELECT outcome FROM lines WHERE place = ?", (place,)).fetchone()
        return _unpacked(found[0]) if found is not None and found[0] is not None else None

    def written(self, place: Place) -> None:
        """Note how far the output has come; what is in it is not kept here, too."""
        with self._transaction():
            self._put({"place": list(place)})
            self._database.execute("DELETE FROM lines WHERE place < ?", (place.lines,))

    def remove(self) -> None:
        """The run is over: nothing of it is left but its output."""
        self.close()
        for suffix in ("-wal", "-shm", "-journal", ""):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def close(self) -> None:
        self._database.close()

    def _write_facts(self, facts: Mapping[str, Any]) -> None:
        with self._transaction():
            self._put(facts)

    def _put(self, facts: Mapping[str, Any]) -> None:
        self._database.executemany(
            "INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)",
            ((name, json.dumps(value)) for name, value in facts.items()),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise


def _packed(outcome: Outcome) -> str:
    return json.dumps({name: value for name, value in asdict(outcome).items() if value is not None})


def _unpacked(text: str) -> Outcome:
    return Outcome(**json.loads(text))


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(f"{path}: {error}; make room, and run the same command again: it goes on") from error


def _refusal(path: Path, error: sqlite3.Error) -> CorralError:
    code = getattr(error, "sqlite_errorcode", None)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return ConfigurationError(f"{path}: another run writes this output; wait for it, or choose another -o")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return ConfigurationError(f"{path}: cannot be written; choose another place for the output ({error})")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return ConfigurationError(f"{path}: is no journal of a batch; remove it, or give --restart")
    return JournalError(f"{path}: {error}")
