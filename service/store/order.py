"""What each owner was served on each runner. It is stored so that the order outlives a restart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.queue import RunnerRow, ShareRow
from service.store.database import Database, Statement


def _upsert(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    changes = ", ".join(f"{column} = :{column}" for column in columns if column not in key)
    values = ", ".join(f":{column}" for column in columns)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
    )


_PUT_RUNNER = _upsert("runners", RunnerRow._fields, ("runner",))
_PUT_SHARE = _upsert("served", ShareRow._fields, ("runner", "owner"))
_DROP_RUNNER = "DELETE FROM runners WHERE runner = :runner"
_DROP_SHARE = "DELETE FROM served WHERE runner = :runner AND owner = :owner"


class OrderStore:
    """The rows of the order."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> tuple[list[RunnerRow], list[ShareRow]]:
        """All rows that were saved."""
        runners = await self._database.read(f"SELECT {', '.join(RunnerRow._fields)} FROM runners", {})
        shares = await self._database.read(f"SELECT {', '.join(ShareRow._fields)} FROM served", {})
        return [RunnerRow._make(row) for row in runners], [ShareRow._make(row) for row in shares]

    async def save(self, runners: Iterable[RunnerRow], shares: Iterable[ShareRow]) -> None:
        """Store these rows, in place of earlier ones. Raises CannotStoreError."""
        await self._database.write(
            *(Statement(_PUT_RUNNER, row._asdict()) for row in runners),
            *(Statement(_PUT_SHARE, row._asdict()) for row in shares),
        )

    async def drop(self, runners: Iterable[str], shares: Iterable[tuple[str, str]]) -> None:
        """Delete these rows. Raises CannotStoreError."""
        statements = [Statement(_DROP_RUNNER, {"runner": runner}) for runner in runners]
        statements += (Statement(_DROP_SHARE, {"runner": runner, "owner": owner}) for runner, owner in shares)
        if statements:
            await self._database.write(*statements)
