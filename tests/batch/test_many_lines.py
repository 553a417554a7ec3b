"""Very many lines: the runner's memory is bounded, and does not grow."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.batch.files import objects
from tests.batch.processes import running_batch
from tests.bench.processes import instant_backend
from tests.support.process_figures import MIB, resident_bytes
from tests.support.processes import running_service


async def run_many(folder: Path, number: int) -> None:
    """So many lines with a backend that costs nothing."""
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    with source.open("w") as file:
        file.writelines(f'{{"id": {place}, "prompt": "prompt {place}"}}\n' for place in range(number))
    room = {"CORRAL_QUEUE__MAX_SIZE": "1000000"}
    async with (
        instant_backend(folder) as port,
        running_service(folder, OLLAMA_URL=f"http://127.0.0.1:{port}", **room) as service,
        running_batch(source, output, url=service.url) as process,
    ):
        waits = asyncio.create_task(process.wait())
        seen: list[tuple[int, int]] = []
        while not waits.done():
            await asyncio.wait((waits,), timeout=0.5)
            if not waits.done():
                size = output.stat().st_size if output.exists() else 0
                seen.append((size, resident_bytes(process.pid)))
        assert await waits == 0
    found = objects(output)
    assert [one["id"] for one in found] == list(range(number))
    assert max(memory for _, memory in seen) < 120 * MIB
    begun = output.stat().st_size * 10_000 // number
    late = [memory for size, memory in seen if size >= begun]
    if len(late) > 4:
        assert max(late) - late[0] < 8 * MIB


async def test_five_thousand_lines_take_little_memory(tmp_path: Path) -> None:
    await run_many(tmp_path, 5_000)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_a_hundred_thousand_lines_take_no_more(tmp_path: Path) -> None:
    await run_many(tmp_path, 100_000)
