"""What the machine, the database and the service itself can do wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.simulated import ArmedFault, Fault, FaultKind, SimulatedServer
from tests.faults.rows import row
from tests.faults.stage import ECHO, MODEL, PROMPT, stage
from tests.support.processes import PATIENCE_SECONDS, Service, running_service

MACHINE = "The machine, the database, the service itself"
STALL_SECONDS = 3.0
PAUSE_SECONDS = 4.0
"""Instead of a minute with limits of minutes: all that counts is that the pause is longer than the limit."""


@dataclass(frozen=True)
class Process:
    """The service as a process of its own, in the middle of a job."""

    service: Service
    session: aiohttp.ClientSession
    ollama: SimulatedServer
    stalled: ArmedFault
    job_id: str

    @property
    def pid(self) -> int:
        return self.service.process.pid

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(path) as response:
            return response.status, await response.json(content_type=None)

    async def submit(self, prompt: str) -> tuple[int, Any]:
        return await submitted(self.session, prompt)

    async def completes(self, job_id: str, prompt: str) -> dict[str, Any]:
        return await completed(self.session, job_id, prompt)


@asynccontextmanager
async def in_the_middle(folder: Path, **settings: str) -> AsyncIterator[Process]:
    """A job of which four tokens have come, and the rest waits."""
    async with (
        SimulatedServer(ECHO) as ollama,
        running_service(folder, OLLAMA_URL=ollama.url, **settings) as service,
        aiohttp.ClientSession(service.url) as session,
    ):
        stalled = ollama.arm(Fault(kind=FaultKind.STALL, prompt=PROMPT, after_tokens=4, times=1))
        status, answer = await submitted(session, PROMPT)
        assert status == 202
        await ollama.observations.until(lambda seen: seen.stalled == 1)
        yield Process(service, session, ollama, stalled, answer["id"])


async def submitted(session: aiohttp.ClientSession, prompt: str) -> tuple[int, Any]:
    async with session.post("/api/v1/prompt", json={"prompt": prompt, "model": MODEL}) as response:
        return response.status, await response.json(content_type=None)


async def completed(session: aiohttp.ClientSession, job_id: str, prompt: str) -> dict[str, Any]:
    """Wait until a job is completed, and that its answer is whole."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            async with session.get(f"/api/v1/prompt/{job_id}/result") as response:
                job = await response.json()
            assert job["status"] in ("queued", "processing", "completed"), job
            if job["status"] == "completed":
                assert job["result"] == prompt
                return dict(job)


@row(MACHINE, "the service is killed in the middle of a job", "the next process runs it again; no failure is counted")
async def killed(folder: Path) -> None:
    async with in_the_middle(folder) as it:
        _, waiting = await it.submit("waits")
        await it.service.process.kill()
        it.stalled.release()
        async with (
            running_service(folder, OLLAMA_URL=it.ollama.url) as again,
            aiohttp.ClientSession(again.url) as session,
        ):
            job = await completed(session, it.job_id, PROMPT)
            assert (job["attempt"], job["failures"]) == (2, 0)
            await completed(session, waiting["id"], "waits")


@row(
    MACHINE,
    "the whole process is stopped for longer than the limit between two pieces (SIGSTOP, a suspended laptop)",
    "what arrived meanwhile is read first: completed by the same attempt",
)
async def paused(folder: Path) -> None:
    limits = {"CORRAL_TIMEOUTS__STALL_SECONDS": str(STALL_SECONDS)}
    async with in_the_middle(folder, **limits) as it:
        it.service.process.send(signal.SIGSTOP)
        it.stalled.release()
        await it.ollama.observations.until(lambda seen: seen.answers == 1)
        await asyncio.sleep(PAUSE_SECONDS)
        it.service.process.send(signal.SIGCONT)
        job = await it.completes(it.job_id, PROMPT)
        assert (job["attempt"], job["failures"]) == (1, 0)


@row(
    MACHINE,
    "the disk is full",
    "new prompts get 503 and `/health` says why; an outcome waits, and is stored when there is room",
)
async def disk_full(folder: Path) -> None:
    async with in_the_middle(folder) as it:
        with _limited(it.pid, resource.RLIMIT_FSIZE, 1):
            status, answer = await it.submit("no room for this")
            assert status == 503
            assert "takes no writes" in answer["error"]
            it.stalled.release()
            await it.service.process.hears("an outcome waits in memory")
            status, health = await it.get("/health")
            assert (status, health["database"]["status"]) == (503, "failed")
            assert (await it.get(f"/api/v1/prompt/{it.job_id}/status"))[1]["status"] == "processing"
        assert (await it.completes(it.job_id, PROMPT))["attempt"] == 1
        await _is_well(it, jobs=2)


@row(
    MACHINE,
    "the service is stopped while the disk is full",
    "it waits `server.drain_seconds` and a little, says how many outcomes are not stored, and ends with status 1; "
    "the next process runs those jobs again",
)
async def stopped_while_disk_full(folder: Path) -> None:
    async with in_the_middle(folder, CORRAL_SERVER__DRAIN_SECONDS="0") as it:
        with _limited(it.pid, resource.RLIMIT_FSIZE, 1):
            it.stalled.release()
            await it.service.process.hears("an outcome waits in memory")
            it.service.process.send(signal.SIGTERM)
            assert await it.service.process.ended() == 1
        said = [line for line in it.service.process.errors if "could not be stored" in line]
        assert len(said) == 1
        assert "1 outcomes could not be stored; those jobs will run again after the next start" in said[0]
        assert not [line for line in it.service.process.errors if "Traceback" in line]
        async with (
            running_service(folder, OLLAMA_URL=it.ollama.url) as again,
            aiohttp.ClientSession(again.url) as session,
        ):
            job = await completed(session, it.job_id, PROMPT)
            assert (job["attempt"], job["failures"]) == (2, 0)


@row(
    MACHINE,
    "another process locks the database",
    "the same: 503 for new prompts, everything can still be looked at, an outcome waits",
)
async def database_locked(folder: Path) -> None:
    async with in_the_middle(folder) as it:
        with closing(sqlite3.connect(folder / "queue.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            status, answer = await it.submit("locked out")
            assert status == 503
            assert "locked" in answer["error"]
            it.stalled.release()
            await it.service.process.hears("an outcome waits in memory")
            assert (await it.get(f"/api/v1/prompt/{it.job_id}/status"))[1]["status"] == "processing"
            other.execute("ROLLBACK")
        assert (await it.completes(it.job_id, PROMPT))["attempt"] == 1
        await _is_well(it, jobs=2)


@row(
    MACHINE,
    "no file descriptors are left",
    "what is connected is served, new connections and calls wait; it recovers when there are some again",
)
async def no_descriptors(folder: Path) -> None:
    async with in_the_middle(folder, CORRAL_HEALTH__PROBE_INTERVAL_SECONDS="0.2") as it:
        used = max(int(name) for name in os.listdir(f"/proc/{it.pid}/fd"))
        with _limited(it.pid, resource.RLIMIT_NOFILE, used + 1), ExitStack() as connected:
            # Connections take what was free among the numbers below; then none are left.
            for _ in range(used):
                connected.enter_context(closing(socket.create_connection(("127.0.0.1", it.service.port))))
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(os.listdir(f"/proc/{it.pid}/fd")) <= used:
                    await it.get("/health")
            taken = [await it.submit(f"{PROMPT} {number}") for number in range(3)]
            assert [status for status, _ in taken] == [202] * 3
            it.stalled.release()
            assert (await it.completes(it.job_id, PROMPT))["attempt"] == 1
        for number, (_, answer) in enumerate(taken):
            job = await it.completes(answer["id"], f"{PROMPT} {number}")
            assert job["failures"] == 0
        await _is_well(it, jobs=5)


@row(MACHINE, "the clock is set back by an hour, also between two runs", "time goes on from the latest that is stored")
async def clock_set_back(folder: Path) -> None:
    async with stage(folder=folder) as it:
        first = await it.completes(await it.submit())
        delayed = await it.submit(not_before=time.time() + 0.5)
        with _clock_set_back():
            second = await it.completes(await it.submit())
            assert second["created_at"] >= first["finished_at"]
            late = await it.completes(delayed)
            assert late["started_at"] >= second["created_at"]
    with _clock_set_back() as wall:
        async with stage(folder=folder) as it:
            third = await it.completes(await it.submit())
            assert third["created_at"] >= second["finished_at"]
            assert second["created_at"] <= third["started_at"] <= third["finished_at"]
            assert _moment(third["finished_at"]) <= wall()
            _, page = await it.service.call("GET", "/api/v1/prompts")
            assert page["prompts"][0]["id"] == third["id"]
            await it.is_well()


@row(
    MACHINE,
    "an error of ours while a job runs",
    "that job fails with `internal_error`, logged with its traceback; no other",
)
async def error_of_ours(folder: Path) -> None:
    async with stage() as it:
        stalled = it.arm(FaultKind.STALL, after_tokens=4)
        other = await it.submit()
        await (await it.follow(other)).sees_output()
        with pytest.MonkeyPatch.context() as patch, _records("service.workers.workers") as records:
            patch.setattr("service.workers.attempt.reader_for", _broken)
            body = {"messages": [{"role": "user", "content": "hello"}], "model": MODEL}
            _, accepted = await it.service.call("POST", "/api/v1/prompt", body)
            job = await it.ends(accepted["id"], "failed")
        assert job["error"] == {"code": "internal_error", "message": "internal error: ZeroDivisionError"}
        assert [record.exc_info[0] for record in records if record.exc_info] == [ZeroDivisionError]
        stalled.release()
        assert (await it.completes(other))["attempt"] == 1
        await it.is_well()


def _broken(*_: Any, **__: Any) -> None:
    raise ZeroDivisionError


async def _is_well(it: Process, *, jobs: int) -> None:
    status, answer = await it.submit("after the fault")
    assert status == 202
    await it.completes(answer["id"], "after the fault")
    status, health = await it.get("/health")
    assert (status, health["status"]) == (200, "ok")
    _, page = await it.get("/api/v1/prompts")
    assert page["total"] == jobs
    assert {job["status"] for job in page["prompts"]} == {"completed"}


@contextmanager
def _limited(pid: int, what: int, soft: int) -> Iterator[None]:
    """Take something away from a running process; it is given back afterwards, if it still runs."""
    before, hard = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, hard))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, what, (before, hard))


@contextmanager
def _clock_set_back() -> Iterator[Callable[[], float]]:
    """Gives the clock that was not set back."""
    wall = time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: wall() - 3600)
        yield wall


@contextmanager
def _records(logger: str) -> Iterator[list[logging.LogRecord]]:
    found: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    handler = Keeping()
    logging.getLogger(logger).addHandler(handler)
    try:
        yield found
    finally:
        logging.getLogger(logger).removeHandler(handler)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
