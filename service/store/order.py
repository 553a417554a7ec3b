"""What each owner was served on each model. It is stored so that the order outlives a restart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.queue import ModelRow, ShareRow
from service.store.database import Database, Statement


def _upsert(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    changes = ", ".join(f"{column} = :{column}" for column in columns if column not in key)
    values = ", ".join(f":{column}" for column in columns)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
    )


_PUT_MODEL = _upsert("served_models", ModelRow._fields, ("model",))
_PUT_SHARE = _upsert("served_owners", ShareRow._fields, ("model", "owner"))
_DROP_MODEL = "DELETE FROM served_models WHERE model = :model"
_DROP_SHARE = "DELETE FROM served_owners WHERE model = :model AND owner = :owner"


class OrderStore:
    """The rows of the order."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> tuple[list[ModelRow], list[ShareRow]]:
        """All rows that were saved."""
        models = await self._database.read(f"SELECT {', '.join(ModelRow._fields)} FROM served_models", {})
        shares = await self._database.read(f"SELECT {', '.join(ShareRow._fields)} FROM served_owners", {})
        return [ModelRow._make(row) for row in models], [ShareRow._make(row) for row in shares]

    async def save(self, models: Iterable[ModelRow], shares: Iterable[ShareRow]) -> None:
        """Store these rows, in place of earlier ones. Raises CannotStoreError."""
        await self._database.write(
            *(Statement(_PUT_MODEL, row._asdict()) for row in models),
            *(Statement(_PUT_SHARE, row._asdict()) for row in shares),
        )

    async def drop(self, models: Iterable[str], shares: Iterable[tuple[str, str]]) -> None:
        """Delete these rows. Raises CannotStoreError."""
        statements = [Statement(_DROP_MODEL, {"model": model}) for model in models]
        statements += (Statement(_DROP_SHARE, {"model": model, "owner": owner}) for model, owner in shares)
        if statements:
            await self._database.write(*statements)
