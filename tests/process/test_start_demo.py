"""``demo`` beside a ``.env``: what it says, where it listens, and how SIGHUP reads that file again."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.support.processes import ChildProcess, started

SECRETS = ("hunter2-the-key", "hunter2-the-prompt")


@asynccontextmanager
async def demo(folder: Path) -> AsyncIterator[tuple[ChildProcess, int]]:
    """A demo with nothing said of where it is to listen, as it comes to one who has just installed it; its port."""
    # What it says must come without this variable, too.
    async with started("service", "demo", "--port", "0", folder=folder, PYTHONUNBUFFERED="") as process:
        yield process, int((await process.hears(r"^Corral listens on http://localhost:(\d+)$"))[1])


async def ask(base: str) -> None:
    """Have a prompt answered."""
    async with aiohttp.ClientSession(base) as session:
        body = {"model": "llama3.2", "prompt": SECRETS[1], "stream": False, "options": {"num_predict": 1}}
        async with session.post("/api/generate", json=body, headers={"Authorization": f"Bearer {SECRETS[0]}"}) as reply:
            assert reply.status == 200


def has_ipv6() -> bool:
    path = Path("/proc/net/if_inet6")
    return path.exists() and any(line.split()[-1] == "lo" for line in path.read_text().splitlines())


async def test_a_demo_serves_this_machine_and_reads_its_env_file_at_the_start_and_on_sighup(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(f"DEMO_USER_KEY={SECRETS[0]}\nLOG_LEVEL=debug\nANOTHER=1\nCORRAL_KEY={SECRETS[0]}\n")
    async with demo(tmp_path) as (process, port):
        await process.hears(rf"^Settings from {re.escape(str(path))}: DEMO_USER_KEY, LOG_LEVEL$")
        await process.hears("^OPEN: DEMO_USER_KEY is set, and yet anybody who reaches 127.0.0.1 or ::1 .*REQUIRED=")
        hosts = ["127.0.0.1", "localhost", *(["[::1]"] if has_ipv6() else [])]
        for host in hosts:
            await ask(f"http://{host}:{port}")
        await process.hears("DEBUG service.workers.attempt: job .*: attempt 1 ends at backend simulated: completed")
        await process.hears("DEBUG service.jobs.ledger: job .* is completed, attempt 1: /api/generate 'llama3.2'")

        path.write_text("LOG_LEVEL=warning\nOLLAMA_MODEL=smaller\n")
        process.send(signal.SIGHUP)
        await process.hears(rf"^Settings from {re.escape(str(path))}: LOG_LEVEL, OLLAMA_MODEL$")
        await ask(f"http://127.0.0.1:{port}")
        path.write_text("LOG_LEVEL warning\n")
        process.send(signal.SIGHUP)
        await process.hears(
            f"ERROR .*the configuration stays as it was: {re.escape(str(path))}: line 1: not NAME=value"
        )
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/api/models") as reply:
            assert (await reply.json())["default"] == "smaller"
        process.send(signal.SIGTERM)
        assert await process.ended() == 0, process.said()
    logged = [line for line in process.errors if " service.access: " in line]
    assert len(logged) == len(hosts), "nothing below WARNING was to be logged from the reload on"
    assert not [secret for secret in SECRETS if secret in process.said()]
    # The libraries' own lines at DEBUG hold whole statements, and so what was asked.
    assert not [line for line in process.errors if " DEBUG " in line and " DEBUG service." not in line]
