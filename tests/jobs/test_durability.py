"""The process is killed again and again under load: what was acknowledged is neither lost nor spoiled by that."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.job import FINAL
from tests.support.processes import (
    PATIENCE_SECONDS,
    Service,
    running_service,
    service_settings,
    simulated_process,
    started,
)

SUBMITTERS = 6
MOST_UNFINISHED = 30
"""Submitters pause here, so that what is left at the end is soon done."""


class Ledger:
    """What the service has said about its jobs. Nothing final may ever be taken back."""

    def __init__(self) -> None:
        self.prompts: dict[str, str] = {}
        """Of every acknowledged job, by its id."""
        self.final: dict[str, str] = {}
        """The status in which a job was first seen to be final."""
        self._numbers = itertools.count(1)
        self._news = asyncio.Condition()

    @property
    def unfinished(self) -> list[str]:
        return [job_id for job_id in self.prompts if job_id not in self.final]

    def new_prompt(self) -> str:
        return f"job {next(self._numbers)} says these nine words again"

    async def acknowledge(self, job_id: str, prompt: str) -> None:
        assert job_id not in self.prompts
        self.prompts[job_id] = prompt
        await self.announce()

    async def see(self, job_id: str, status: str) -> None:
        known = self.final.get(job_id)
        assert known in (None, status), f"{job_id} was {known} and is {status} now"
        if known is None and status in FINAL:
            self.final[job_id] = status
            await self.announce()

    async def announce(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(is_true)


class Life:
    """One run of the service, from its start to its death, with everybody who uses it."""

    def __init__(self, service: Service, session: aiohttp.ClientSession, ledger: Ledger, chance: random.Random) -> None:
        self._service = service
        self._session = session
        self._ledger = ledger
        self._chance = chance
        self._is_over = False

    async def live_until(self, is_time: Callable[[], bool]) -> None:
        """Submit, cancel and watch, and kill the process as soon as it is time, in the middle of all that."""
        async with asyncio.TaskGroup() as users:
            for _ in range(SUBMITTERS):
                users.create_task(self._submit())
            users.create_task(self._cancel_some())
            users.create_task(self._watch())
            await self._ledger.until(is_time)
            self._is_over = True
            await self._service.process.kill()
            await self._ledger.announce()

    async def look_at(self, job_ids: list[str]) -> None:
        """Every acknowledged job is there."""
        for job_id in job_ids:
            await self._ledger.see(job_id, (await self.get(f"/api/v1/prompt/{job_id}/status"))["status"])

    async def finish_everything(self) -> None:
        """Wait until the service knows of no job that is not final, acknowledged or not."""
        left: list[str] = []
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while left := [row["id"] for row in await self._listed("processing") + await self._listed("queued")]:
                    for job_id in left:
                        await self.get(f"/api/v1/prompt/{job_id}/status?wait=5")
        except TimeoutError:
            raise AssertionError(f"these never end: {left}") from None

    async def get(self, path: str) -> Any:
        async with self._session.get(self._service.url + path) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def _listed(self, status: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (await self.get(f"/api/v1/prompts?page_size=100&status={status}"))["prompts"]
        return rows

    async def _submit(self) -> None:
        with self._death_expected():
            while not self._is_over:
                await self._until(lambda: len(self._ledger.unfinished) < MOST_UNFINISHED)
                prompt = self._ledger.new_prompt()
                async with self._session.post(
                    f"{self._service.url}/api/v1/prompt", json={"prompt": prompt}
                ) as response:
                    assert response.status == 202, await response.text()
                    await self._ledger.acknowledge((await response.json())["id"], prompt)

    async def _cancel_some(self) -> None:
        with self._death_expected():
            while not self._is_over:
                await self._until(partial(_is_longer, self._ledger.final, len(self._ledger.final) + 10))
                job_id = self._chance.choice(list(self._ledger.prompts))
                async with self._session.delete(f"{self._service.url}/api/v1/prompt/{job_id}") as response:
                    assert response.status == 200, await response.text()
                    await self._ledger.see(job_id, (await response.json())["status"])

    async def _watch(self) -> None:
        with self._death_expected():
            async with self._session.ws_connect(f"{self._service.url}/api/v1/ws") as websocket:
                await websocket.send_json({"type": "subscribe", "channel": "jobs"})
                async for message in websocket:
                    event = message.json()
                    if event["type"] == "job":
                        await self._ledger.see(event["id"], event["status"])

    async def _until(self, is_true: Callable[[], bool]) -> None:
        await self._ledger.until(lambda: self._is_over or is_true())

    @contextlib.contextmanager
    def _death_expected(self) -> Iterator[None]:
        try:
            yield
        except aiohttp.ClientError:
            if not self._is_over:
                raise


async def test_a_process_that_is_killed_and_killed_again_loses_and_spoils_no_job(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, rounds=4)


# As long as the rounds that were asked for take; every wait within has an end of its own.
@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_however_often_a_process_is_killed_it_loses_and_spoils_no_job(tmp_path: Path, rounds: int) -> None:
    await kill_again_and_again(tmp_path, rounds)


async def kill_again_and_again(folder: Path, rounds: int) -> None:
    """Every fourth time also while it starts."""
    ledger = Ledger()
    async with (
        simulated_process(
            folder, "--answer", "echo", "--token-seconds", "0.003", "--load-seconds", "0", "--parallel", "4"
        ) as backend,
        aiohttp.ClientSession() as session,
    ):
        for number in range(rounds):
            chance = random.Random(number)
            if number % 4 == 3:
                await _die_while_starting(folder, backend)
            async with _life(folder, backend, session, ledger, chance) as life:
                await life.look_at(ledger.unfinished)
                await life.live_until(_time_to_die(ledger, chance))
        async with running_service(folder, OLLAMA_URL=backend) as service:
            life = Life(service, session, ledger, random.Random(rounds))
            await life.finish_everything()
            await life.look_at(list(ledger.prompts))
            assert ledger.unfinished == []
            await _check_answers(life, ledger)
            service.process.send(signal.SIGTERM)
            assert await service.process.ended() == 0
    _check_rows(folder / "queue.db", ledger)


@asynccontextmanager
async def _life(
    folder: Path, backend: str, session: aiohttp.ClientSession, ledger: Ledger, chance: random.Random
) -> AsyncIterator[Life]:
    async with running_service(folder, OLLAMA_URL=backend) as service:
        yield Life(service, session, ledger, chance)


def _time_to_die(ledger: Ledger, chance: random.Random) -> Callable[[], bool]:
    """After so many more acknowledgements, or so many more ends: at once, early, or well under way."""
    counted: dict[str, str] = chance.choice((ledger.prompts, ledger.final))
    return partial(_is_longer, counted, len(counted) + chance.choice((-1, 0, 2, 9, 24)))


def _is_longer(counted: dict[str, str], length: int) -> bool:
    return len(counted) > length


async def _die_while_starting(folder: Path, backend: str) -> None:
    """Killed when it has just taken back the jobs of the one before, or before that."""
    async with started("service", folder=folder, **service_settings(folder, OLLAMA_URL=backend)) as process:
        await process.hears(r"queued again|listens on")


async def _check_answers(life: Life, ledger: Ledger) -> None:
    """The simulated model gives the prompt back: an answer that lacks a word, or has one twice, is seen."""
    for job_id, prompt in ledger.prompts.items():
        if ledger.final[job_id] == "completed":
            assert (await life.get(f"/api/v1/prompt/{job_id}/result"))["result"] == prompt


def _check_rows(path: Path, ledger: Ledger) -> None:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT id, status, failures, EXISTS (SELECT 1 FROM results WHERE results.seq = jobs.seq) FROM jobs"
        ).fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    stored = {row[0]: row[1] for row in rows}
    assert ledger.prompts.keys() <= stored.keys()
    # Of some that were never acknowledged to their submitter, the watcher heard.
    assert {job_id: stored[job_id] for job_id in ledger.final} == ledger.final
    assert set(stored.values()) <= {"completed", "cancelled"}
    assert [row for row in rows if row[2] != 0] == []
    assert [row for row in rows if row[1] == "completed" and not row[3]] == []
    assert "completed" in ledger.final.values()
