"""What owners were served outlives a restart of the service."""

from __future__ import annotations

from pathlib import Path

from service.job import model_key
from service.store.opening import open_database
from service.store.order import OrderStore
from tests.support.running import service_in_process


async def test_what_an_owner_was_served_is_there_after_a_restart(tmp_path: Path) -> None:
    async with service_in_process(folder=tmp_path) as service:
        for _ in range(3):
            await service.finished()
        before = service.jobs.backlog.expected_ms(model_key(service.config.queue.default_model))
    async with service_in_process(folder=tmp_path) as service:
        assert service.jobs.backlog.expected_ms(model_key(service.config.queue.default_model)) == before
        database_path = service.config.database
    database = await open_database(database_path)
    try:
        runners, shares = await OrderStore(database).load()
    finally:
        await database.close()
    assert [row.samples for row in runners] == [3]
    assert [row.served > 0 for row in shares] == [True]
    assert shares[0].normal == shares[0].served
