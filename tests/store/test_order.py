"""What owners were served, as the database keeps it."""

from __future__ import annotations

import pytest

from service.queue import ModelRow, ShareRow
from service.store.database import Statement
from service.store.migrations import MIGRATIONS
from service.store.order import OrderStore
from tests.support.databases import Place

BY_RUNNER = 12
"""The last schema that counted by runner."""
PLAIN, LONG = "a:latest", 'a:latest {"num_ctx":8192}'
RUNNERS = [(PLAIN, 100.0, 10.0, 8), (LONG, 40.0, 30.0, 4), ("b:latest", 7.0, None, 0)]
SERVED = [
    (PLAIN, "both", 90.0, 5, 91.0, None, None, 91.0, 5, None, None),
    (LONG, "both", 45.0, 9, 46.0, 40.0, 8, 46.0, 9, None, None),
    (PLAIN, "one", 100.0, 6, 100.0, None, None, None, None, 100.0, 6),
    ("b:latest", "one", 3.0, 2, 3.0, None, None, 3.0, 2, None, None),
]


async def test_what_was_counted_by_runner_is_carried_over_to_its_model(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "service.store.sqlite.database" if place.is_sqlite else "service.store.postgres.database"
    with monkeypatch.context() as before:
        before.setattr(f"{module}.MIGRATIONS", MIGRATIONS[:BY_RUNNER])
        before.setattr(f"{module}.NEWEST", BY_RUNNER)
        async with place.opened() as database:
            for table, rows in (("runners", RUNNERS), ("served", SERVED)):
                for row in rows:
                    values = {f"c{number}": value for number, value in enumerate(row)}
                    names = ", ".join(f":{name}" for name in values)
                    await database.write(Statement(f"INSERT INTO {table} VALUES ({names})", values))
    async with place.opened() as database:
        models, shares = await OrderStore(database).load()
    assert sorted(models) == [ModelRow("a:latest", 140.0, 200 / 12, 8), ModelRow("b:latest", 7.0, None, 0)]
    # One was behind on one runner by ten and ahead on the other by five; who has no row begins where all are.
    assert sorted(shares) == [
        ShareRow("a:latest", "both", 135.0, 9, 137.0, 131.0, 8, 137.0, 9, None, None),
        ShareRow("a:latest", "one", 140.0, 6, 100.0, None, None, None, None, 100.0, 6),
        ShareRow("b:latest", "one", 3.0, 2, 3.0, None, None, 3.0, 2, None, None),
    ]


async def test_rows_are_replaced_and_dropped_by_model_and_owner(place: Place) -> None:
    rows = [ShareRow("a", owner, 1.0, 1, 1.0, None, None, 1.0, 1, None, None) for owner in ("one", "two")]
    async with place.opened() as database:
        store = OrderStore(database)
        await store.save([ModelRow("a", 1.0, None, 0)], rows)
        await store.save([ModelRow("a", 2.0, 5.0, 1)], [rows[0]._replace(served=2.0)])
        await store.drop([], [("a", "two")])
        assert await store.load() == ([ModelRow("a", 2.0, 5.0, 1)], [rows[0]._replace(served=2.0)])
        await store.drop(["a"], [("a", "one")])
        assert await store.load() == ([], [])
