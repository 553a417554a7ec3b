"""Attacks on a service that is a process of its own, and the victim: another owner, who is to be answered meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import select
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp

from service.endpoints import ENDPOINTS
from tests.bench.million_jobs import make_database
from tests.support.access import bearer
from tests.support.process_figures import forget_peak, peak_bytes, resident_bytes
from tests.support.processes import PATIENCE_SECONDS, Service, running_service, simulated_process
from tests.support.raw_client import Answer, received_answer

MEBIBYTE = 1 << 20
MODEL = "llama3.2"
STUCK_SECONDS = 2.0
"""So long the service takes nothing of what is sent before that is as much as it will take."""
_PACKET = 1 << 18
_LARGE_ANSWER = 4 * MEBIBYTE
_SETTINGS = {
    "CORRAL_AUTH__REQUIRED": "true",
    # Half of it for one owner: less than an attack may cost.
    "CORRAL_SERVER__MAX_BODIES_BYTES": "256 MiB",
}
ADMIN = "the-key-of-the-attacked-admin"


Done = TypeVar("Done")


class Waits(NamedTuple):
    """How many seconds each of the victim's calls took until its answer began."""

    submit: float
    poll: float
    stream: float


class Victim:
    """An owner who does nothing odd."""

    def __init__(self, session: aiohttp.ClientSession, headers: dict[str, str]) -> None:
        self._session = session
        self._headers = headers

    async def is_served(self) -> Waits:
        """Submit a prompt, look at it, and have a chat streamed to its end. Fails when one is refused."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            begun = time.perf_counter()
            job = await self._answer("POST", "/api/v1/prompt", 202, {"prompt": "Hello", "model": MODEL})
            submitted = time.perf_counter()
            await self._answer("GET", f"/api/v1/prompt/{job['id']}/status", 200)
            polled = time.perf_counter()
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
            async with self._session.post("/api/chat", json=body, headers=self._headers) as response:
                assert response.status == 200, await response.text()
                await response.content.readany()
                streamed = time.perf_counter()
                await response.read()
        return Waits(submitted - begun, polled - submitted, streamed - polled)

    async def served_until(self, ended: asyncio.Event) -> list[Waits]:
        """Be served again and again until then, and twice at least."""
        waits = [await self.is_served()]
        while not ended.is_set() or len(waits) < 2:
            waits.append(await self.is_served())
        return waits

    async def _answer(self, method: str, path: str, status: int, body: Any = None) -> dict[str, Any]:
        async with self._session.request(method, path, json=body, headers=self._headers) as response:
            assert response.status == status, await response.text()
            return dict(await response.json())


class Blow(NamedTuple):
    """One connection of an attack: what is sent at once, and what is kept back until the victim has been served."""

    first: bytes
    last: bytes = b""
    is_answered: bool = True
    """False: it never ends by itself, and is broken off."""
    is_read: bool = True
    """False: it asks, and does not take what is answered."""


class Attacker:
    """Who deals one blow, from a thread: the loop in which the victim's calls are measured has no part in it."""

    def __init__(self, port: int, blow: Blow) -> None:
        self._blow = blow
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)

    def begin(self) -> None:
        """Send the first part: all of it, or as much as is taken before the service answers or takes no more."""
        self._socket.setblocking(False)
        left = memoryview(self._blow.first)
        answers = [self._socket] if self._blow.is_read else []
        while left:
            readable, writable, _ = select.select(answers, [self._socket], [], STUCK_SECONDS)
            if readable or not writable:
                return
            try:
                left = left[self._socket.send(left[:_PACKET]) :]
            except ConnectionError:
                return

    def end(self) -> Answer | None:
        """Send the rest; the answer. None where it is broken off, or the service closed without one."""
        with self._socket:
            if not self._blow.is_answered:
                return None
            self._socket.settimeout(PATIENCE_SECONDS)
            with contextlib.suppress(ConnectionError):
                self._socket.sendall(self._blow.last)
            return received_answer(self._socket, "GET")


class Attacked:
    """A service with a victim, an attacker's key, and a backend whose calls are counted."""

    def __init__(
        self, service: Service, session: aiohttp.ClientSession, backend: str, victim: Victim, key: str, job_id: str
    ) -> None:
        self.port = service.port
        self.victim = victim
        self.key = key
        """Of the attacker. It may use no model but one."""
        self.job_id = job_id
        """Of a finished job of the attacker's, with a large answer."""
        self._pid = service.process.pid
        self._process = service.process
        self._session = session
        self._backend = backend

    async def attackers(self, blows: Sequence[Blow]) -> list[Attacker]:
        """One for each blow, who has sent all but the end of it."""
        attackers = [Attacker(self.port, blow) for blow in blows]
        await self._all([attacker.begin for attacker in attackers])
        return attackers

    async def end(self, attackers: Sequence[Attacker]) -> list[Answer | None]:
        """Let them send the end of it; their answers."""
        return await self._all([attacker.end for attacker in attackers])

    async def _all(self, works: Sequence[Callable[[], Done]]) -> list[Done]:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(len(works)) as threads:
            return list(await asyncio.gather(*(loop.run_in_executor(threads, work) for work in works)))

    async def calls_at_the_backend(self) -> int:
        """How many requests for work have reached the backend."""
        async with self._session.get(f"{self._backend}/simulated/state") as response:
            requests = (await response.json())["requests"]
        return sum(count for path, count in requests.items() if path in ENDPOINTS)

    def forget_peak(self) -> int:
        """Measure the peak of the memory from now on; what is resident now."""
        forget_peak(self._pid)
        return self.resident()

    def resident(self) -> int:
        return resident_bytes(self._pid)

    def peak(self) -> int:
        """The most memory that was resident at once."""
        return peak_bytes(self._pid)

    def said(self) -> str:
        return self._process.said()


@asynccontextmanager
async def attacked_service(folder: Path, rows: int = 0) -> AsyncIterator[Attacked]:
    """A service that requires keys, over a simulated Ollama. ``rows``: so many finished jobs are in its database."""
    if rows:
        await make_database(folder / "queue.db", rows)
        with closing(sqlite3.connect(folder / "queue.db")) as database, database:
            database.execute("UPDATE jobs SET status = 'completed', finished_at = updated_at")
    models = json.dumps([{"name": name} for name in (MODEL, "forbidden")])
    simulated = ("--models", models, "--tokens", "5", "--load-seconds", "0", "--parallel", "8")
    async with (
        simulated_process(folder, *simulated, "--together", "--answer", "echo") as backend,
        running_service(folder, OLLAMA_URL=backend, DEMO_ADMIN_KEY=ADMIN, **_SETTINGS) as service,
        aiohttp.ClientSession(service.url) as session,
    ):
        keys = [await _made_key(session, name=name, models=[MODEL]) for name in ("victim", "attacker")]
        victim, attacker = (bearer(key) for key in keys)
        job_id = await _finished(session, attacker)
        yield Attacked(service, session, backend, Victim(session, victim), keys[1], job_id)


async def _made_key(session: aiohttp.ClientSession, **fields: Any) -> str:
    async with session.post("/api/keys", json=fields, headers=bearer(ADMIN)) as response:
        assert response.status == 201, await response.text()
        return str((await response.json())["key"])


async def _finished(session: aiohttp.ClientSession, headers: dict[str, str]) -> str:
    """The id of a completed job with a large answer."""
    # The simulated Ollama gives the last message back.
    body = {"messages": [{"role": "user", "content": "x" * _LARGE_ANSWER}], "model": MODEL}
    data = io.BytesIO(json.dumps(body).encode())
    async with session.post("/api/v1/prompt", data=data, headers=headers) as response:
        assert response.status == 202, await response.text()
        job_id = str((await response.json())["id"])
    known = "queued"
    while known in ("queued", "processing"):
        query = {"wait": "30", "status": known}
        async with session.get(f"/api/v1/prompt/{job_id}/status", params=query, headers=headers) as response:
            job = await response.json()
            known = job["status"]
    assert known == "completed", job
    return job_id
