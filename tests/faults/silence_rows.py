"""Ollama, or its machine, says nothing at all, or nothing to some questions."""

from __future__ import annotations

import errno
from pathlib import Path

from service.api.context import POOL
from service.simulated import Fault, FaultKind, SimulatedServer
from tests.faults.ollama_rows import OLLAMA
from tests.faults.rows import row
from tests.faults.stage import ECHO, MODEL, stage
from tests.support.backends import backends, until_answering
from tests.support.running import service_in_process

SOON = {"health.probe_timeout_seconds": 0.2}


@row(
    OLLAMA,
    "it is slow to tell what it has loaded (`/api/ps`), and answers to all else",
    "its jobs go on by the last list; only after 180 s without a new one it counts as absent",
)
async def slow_list(folder: Path) -> None:
    async with stage(SOON) as it:
        hung = it.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/ps"))
        [box] = it.service.app[POOL]
        while not box.loaded_list.is_old:
            await it.service.call("GET", "/health")
        assert (await it.completes(await it.submit()))["attempt"] == 1
        await until_answering(it.service, 1)
        hung.release()
        await it.is_well()


@row(
    OLLAMA,
    "it accepts connections and is silent, and another has the model",
    "lists hold what it told last, and `/api/show` is answered by the other, both after 4 s at most",
)
async def silent(folder: Path) -> None:
    async with SimulatedServer(ECHO) as one, SimulatedServer(ECHO) as other:
        options = {**backends(one, other), **SOON, "health.probe_interval_seconds": 3600}
        async with service_in_process(options, folder=folder) as service:
            await until_answering(service, 2)
            for path in ("/api/version", "/api/tags", "/api/ps", "/api/show"):
                one.arm(Fault(kind=FaultKind.STALL, endpoint=path))
            for path in ("/api/tags", "/api/ps"):
                assert (await service.call("GET", path))[0] == 200
            status, told = await service.call("POST", "/api/show", {"model": MODEL})
            assert (status, bool(told["modelfile"])) == (200, True)
            assert other.observations.requests["/api/show"] >= 1


@row(
    OLLAMA,
    "it vanishes without a goodbye (no power, no network)",
    "found in a little more than two minutes: the call is lost, and the job tried again",
)
async def vanished_backend(folder: Path) -> None:
    async with stage() as it:
        stalled = it.arm(FaultKind.STALL, after_tokens=4)
        job_id = await it.submit()
        await it.ollama.observations.until(lambda seen: seen.stalled == 1)
        [box] = it.service.app[POOL]
        for connection in tuple(box.client._connections._open):
            # What the kernel does when nobody has answered to its questions.
            connection._transport._force_close(TimeoutError(errno.ETIMEDOUT, "timed out"))  # type: ignore[union-attr]
        assert (await it.completes(job_id))["attempt"] == 2
        stalled.release()
        await it.is_well()
