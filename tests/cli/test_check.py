"""What ``check`` warns of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corral.cli.asked import Asked
from service.cli.check import check
from service.config import Config, load_config
from tests.support.raw_server import Exchange, raw_server, whole

LLAMA = {"name": "llama3.2:latest", "digest": "one"}
COPY = {"name": "copy:latest", "digest": "one"}
EYES = {"name": "eyes:latest", "digest": "two"}
REMOTE = {"name": "big:cloud", "digest": "three", "remote_model": "big"}


async def warnings(folder: Path, listed: list[dict[str, Any]], **fields: Any) -> list[str]:
    """What is said of a backend that has these models, with nothing wrong."""
    answers = {"/api/version": {"version": "0.33.0"}, "/api/tags": {"models": listed}}

    async def serve(exchange: Exchange) -> None:
        await exchange.send(whole(json.dumps(answers[exchange.path]).encode()))

    said: list[str] = []
    async with raw_server(serve) as ollama:
        backend = {"name": "box", "url": ollama.url, **fields}
        config: Config = load_config(
            environ={}, options={"backends": [backend], "database.path": str(folder / "queue.db")}
        )
        assert await check(config, Asked(), say=said.append) == 0, said
    return [line for line in said if line.startswith("warning")]


async def test_one_seat_for_several_models_is_warned_of(tmp_path: Path) -> None:
    [warning] = await warnings(tmp_path, [LLAMA, EYES], concurrency=1)
    for words in ("backend box: concurrency = 1, and 2 models", "beside an answer", "OLLAMA_NUM_PARALLEL", "3 for"):
        assert words in warning


@pytest.mark.parametrize(
    ("listed", "fields"),
    [
        ([LLAMA, EYES], {"concurrency": 2}),
        ([LLAMA, EYES], {}),
        ([LLAMA], {"concurrency": 1}),
        ([LLAMA, EYES], {"concurrency": 1, "models": ["LLAMA3.2"]}),
        # Copies have one runner, and models of Ollama's cloud none.
        ([LLAMA, COPY, REMOTE], {"concurrency": 1}),
    ],
)
async def test_one_seat_that_is_enough_or_several_seats_are_not_warned_of(
    tmp_path: Path, listed: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    assert await warnings(tmp_path, listed, **fields) == []
