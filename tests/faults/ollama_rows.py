"""What Ollama, or what stands in its place, can do wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiohttp import web

from service.simulated import Fault, FaultKind, SimulatedModel, busy
from service.simulated.faults import LOAD_FAILED
from tests.faults.rows import row
from tests.faults.stage import ECHO, MODEL, PROMPT, stage
from tests.support.backends import until_answering

OLLAMA = "Ollama"


@row(OLLAMA, "an error that passes (500), before the first byte", "tried again after a pause, at most five times")
async def transient_error(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.ERROR, status=500, message="something that passes", times=5)
        job = await it.completes(await it.submit())
        assert (job["attempt"], job["failures"]) == (6, 5)
        assert "error" not in job
        await it.is_well()


@row(
    OLLAMA, "an error that does not pass after all", "the job fails with Ollama's message when the retries have run out"
)
async def lasting_error(folder: Path) -> None:
    async with stage({"breaker.failure_threshold": 100}) as it:
        lasting = it.arm(FaultKind.ERROR, status=500, message="something that lasts", times=None)
        job = await it.ends(await it.submit(), "failed")
        assert (job["attempt"], job["failures"]) == (6, 5)
        assert job["error"] == {"code": "backend_error", "message": "something that lasts"}
        lasting.remove()
        await it.is_well()


@row(OLLAMA, "the request itself is refused (400, 404, some 500)", "the job fails at once, with Ollama's message")
async def refused(folder: Path) -> None:
    async with stage() as it:
        for status, message in ((400, "invalid think value"), (500, 'option "top_k" must be of type integer')):
            it.arm(FaultKind.ERROR, status=status, message=message)
            job = await it.ends(await it.submit(), "failed")
            assert (job["attempt"], job["error"]["message"]) == (1, message)
        await it.is_well()


@row(OLLAMA, "its own queue is full (503)", "the job is held, and no failure counted")
async def busy_server(folder: Path) -> None:
    async with stage() as it:
        it.ollama.arm(busy(prompt=PROMPT, times=8))
        job = await it.completes(await it.submit())
        assert (job["attempt"], job["failures"]) == (9, 0)
        await it.is_well()


@row(OLLAMA, "an error line in the middle of a stream", "the half answer is thrown away, the job tried again")
async def error_line(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.ERROR_LINE, after_tokens=4)
        job = await it.completes(await it.submit())
        assert (job["attempt"], job["failures"]) == (2, 1)
        await it.is_well()


@row(OLLAMA, "the model's runner dies under a job", "the job is tried again, which loads the model again")
async def runner_killed(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.RUNNER_KILLED, after_tokens=4)
        job = await it.completes(await it.submit())
        assert (job["attempt"], job["failures"]) == (2, 1)
        assert it.ollama.observations.loads.total() == 2
        await it.is_well()


@row(OLLAMA, "the model's runner dies under the same job again", "the job fails as poison; others are not affected")
async def runner_killed_twice(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.RUNNER_KILLED, after_tokens=4, times=None)
        job = await it.ends(await it.submit(), "failed")
        assert (job["attempt"], job["error"]["code"]) == (2, "poison")
        await it.is_well()


@row(
    OLLAMA,
    "the stream ends properly, but without its end",
    "never taken for whole: tried again, the second time failed",
)
async def no_done(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.NO_DONE, after_tokens=5)
        assert (await it.completes(await it.submit()))["attempt"] == 2
        cut = it.arm(FaultKind.NO_DONE, after_tokens=5, times=None)
        job = await it.ends(await it.submit(), "failed")
        assert "ended before it was complete" in job["error"]["message"]
        _, result = await it.service.call("GET", f"/api/v1/prompt/{job['id']}/result")
        # Nothing of what the model wrote is told as the answer.
        assert result["result"] == f"The prompt failed: {job['error']['message']}"
        cut.remove()
        await it.is_well()


@row(OLLAMA, "the connection is reset in the middle of a line", "the half answer is thrown away, the job tried again")
async def reset(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.RESET, after_tokens=4)
        assert (await it.completes(await it.submit()))["attempt"] == 2
        await it.is_well()


@row(OLLAMA, "the connection is closed in the middle", "the same")
async def hang_up(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.HANG_UP, after_tokens=4)
        assert (await it.completes(await it.submit()))["attempt"] == 2
        it.arm(FaultKind.HANG_UP)
        # Before the first byte on a connection that was kept open: asked again on a new one, within the attempt.
        await it.completes(await it.submit())
        await it.is_well()


@row(OLLAMA, "the stream comes in pieces cut anywhere, also inside a character", "read as if it were whole: completed")
async def split(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.SPLIT, size=1)
        assert (await it.completes(await it.submit()))["attempt"] == 1
        await it.is_well()


@row(OLLAMA, "several objects come in one piece", "the same")
async def merged(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.MERGE, size=5)
        assert (await it.completes(await it.submit()))["attempt"] == 1
        await it.is_well()


@row(OLLAMA, "a line of 2 MB", "completed")
async def long_line(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.LONG_LINE, size=2_000_000)
        job_id = await it.submit()
        assert (await it.ends(job_id, "completed"))["attempt"] == 1
        _, result = await it.service.call("GET", f"/api/v1/prompt/{job_id}/result")
        assert len(result["result"]) > 2_000_000
        await it.is_well()


@row(
    OLLAMA,
    "an answer longer than `output.max_bytes`, 4 times that as the JSON of a drop-in reply, or as many numbers",
    "the job fails at once with `output_too_large`, its caller gets 400, and the seat is free again",
)
async def too_long(folder: Path) -> None:
    models = (*ECHO.models, SimulatedModel("embed", ("embedding",)))
    async with stage({"output.max_bytes": 100_000}, models=models) as it:
        it.arm(FaultKind.LONG_LINE, size=200_000)
        job = await it.ends(await it.submit(), "failed")
        assert (job["attempt"], job["error"]["code"]) == (1, "output_too_large")
        body = {"model": "embed", "input": ["text"] * 2_000}
        async with it.service.session.post("/api/embed", json=body) as reply:
            assert reply.status == 400
            job = await it.ends(reply.headers["X-Job-Id"], "failed")
        assert (job["attempt"], job["error"]["code"]) == (1, "output_too_large")
        await it.is_well()


@row(OLLAMA, "an answer without end (`num_predict: 0`)", "the attempt's time limit ends it, and the job fails")
async def endless(folder: Path) -> None:
    async with stage({"timeouts.attempt_seconds": 0.5}) as it:
        job = await it.ends(await it.submit(options={"num_predict": 0}), "failed")
        assert (job["attempt"], job["error"]["code"]) == (1, "attempt_timeout")
        await it.is_well()


@row(OLLAMA, "a load does not end", "the first-byte limit of a cold model ends the attempt; the job is tried again")
async def stalled_load(folder: Path) -> None:
    async with stage({"timeouts.first_byte_cold_seconds": 0.5}) as it:
        it.ollama.arm(_load_fault(FaultKind.LOAD_STALL))
        job = await it.completes(await it.submit())
        assert job["attempt"] == job["failures"] + 1 >= 2
        await it.is_well()


@row(OLLAMA, "a load fails", "the job is tried again; when the second load fails too, it fails with Ollama's message")
async def failed_load(folder: Path) -> None:
    async with stage() as it:
        it.ollama.arm(_load_fault(FaultKind.LOAD_ERROR))
        assert (await it.completes(await it.submit()))["attempt"] == 2
    async with stage() as it:
        broken = it.ollama.arm(_load_fault(FaultKind.LOAD_ERROR, times=None))
        job = await it.ends(await it.submit(), "failed")
        assert job["attempt"] == 2
        assert LOAD_FAILED in job["error"]["message"]
        broken.remove()
        await it.is_well()


@row(
    OLLAMA,
    "the server dies in the middle, and comes back",
    "followers are told `restart`; completed by the next attempt",
)
async def server_dies(folder: Path) -> None:
    async with stage() as it:
        stall = it.arm(FaultKind.STALL, after_tokens=4)
        job_id = await it.submit()
        follower = await it.follow(job_id)
        async with it.service.session.ws_connect("/api/v1/ws") as websocket:
            await websocket.send_json({"type": "subscribe", "channel": "job", "id": job_id})
            await follower.sees_output()
            await it.ollama.die()
            stall.remove()
            await it.service.look(job_id, lambda job: job["status"] == "queued")
            await it.ollama.accept_connections()
            job = await it.completes(job_id)
            await follower.ends()
            heard: list[dict[str, Any]] = []
            while not heard or heard[-1]["type"] != "done":
                heard.append(await websocket.receive_json())
        assert job["attempt"] == 2
        assert (follower.restarts, follower.text) == (1, PROMPT)
        kinds = [message["type"] for message in heard]
        assert kinds.count("restart") == 1
        shown = heard[kinds.index("restart") :]
        assert "".join(message["data"] for message in shown if message["type"] == "output") == PROMPT
        await it.is_well()


@row(
    OLLAMA,
    "the server dies under more jobs than its breaker bears, and comes back",
    "it is tried again as soon as it answers, not when the breaker's time is over",
)
async def server_dies_under_many(folder: Path) -> None:
    async with stage({"breaker.open_seconds": 300}, seats=8) as it:
        stall = it.arm(FaultKind.STALL, after_tokens=4, times=None)
        prompts = [f"{PROMPT} {number}" for number in range(8)]
        jobs = [await it.submit(prompt) for prompt in prompts]
        await it.ollama.observations.until(lambda seen: seen.stalled == 8)
        await it.ollama.die()
        stall.remove()
        await until_answering(it.service, 0)
        assert it.breaker.state == "open"
        await it.ollama.accept_connections()
        for job_id, prompt in zip(jobs, prompts, strict=True):
            assert (await it.completes(job_id, prompt))["attempt"] == 2
        await it.is_well()


@row(
    OLLAMA,
    "no backend answers",
    "jobs are accepted and held, no failure counted; they start when one returns. Lists of models are the last ones, "
    "and say their age, also after a restart",
)
async def all_down(folder: Path) -> None:
    async with stage() as it:
        await it.ollama.refuse_connections()
        jobs = [await it.submit(f"{PROMPT} {number}") for number in range(3)]
        await until_answering(it.service, 0)
        jobs.append(await it.submit(f"{PROMPT} 3"))
        async with it.service.session.get("/api/tags") as tags:
            assert f"{MODEL}:latest" in {entry["name"] for entry in (await tags.json())["models"]}
            assert "X-List-Age-Seconds" in tags.headers
        assert it.ollama.observations.answers == 0
        await it.ollama.accept_connections()
        for number, job_id in enumerate(jobs):
            job = await it.completes(job_id, f"{PROMPT} {number}")
            assert job["failures"] == 0
        await it.is_well()


@row(
    OLLAMA,
    "it fails one job after another of a model",
    "the model's breaker opens: jobs of the same callers wait for a while, and then one is tried; other models and "
    "other callers go on. One job that fails again and again opens nothing",
)
async def model_fails(folder: Path) -> None:
    options = {"breaker.failure_threshold": 2, "breaker.open_seconds": 0.5, "retry.max_retries": 1000}
    async with stage(options, seats=1) as it:
        failing = it.arm(FaultKind.ERROR, status=500, message="something", times=None)
        alone = await it.submit()
        await it.service.look(alone, lambda job: job["failures"] >= 4)
        assert it.states == {MODEL: "closed"}
        other = await it.submit(f"{PROMPT} 2")
        while it.states != {MODEL: "open"}:
            await it.service.call("GET", "/health")
        assert it.breaker.state == "closed"
        await it.ends(await it.service.submit("well", model="other"), "completed")
        failing.remove()
        await it.completes(alone)
        await it.completes(other, f"{PROMPT} 2")
        assert it.states == {}
        await it.is_well()


@row(
    OLLAMA,
    "it fails the jobs of several models",
    "its breaker opens: it is left alone for a while, then tried with one job",
)
async def breaker_opens(folder: Path) -> None:
    options = {"breaker.failure_threshold": 3, "breaker.open_seconds": 0.5, "retry.max_retries": 1000}
    async with stage(options, seats=1) as it:
        failing = it.arm(FaultKind.ERROR, status=500, message="something", times=None)
        jobs = {
            await it.service.submit(f"{PROMPT} {number}", model=model): f"{PROMPT} {number}"
            for number in range(2)
            for model in (MODEL, "other")
        }
        while it.breaker.state != "open":
            await it.service.call("GET", "/health")
        assert it.breaker.rest_seconds > 0
        failing.remove()
        for job_id, prompt in jobs.items():
            await it.completes(job_id, prompt)
        assert (it.breaker.state, it.states) == ("closed", {})
        await it.is_well()


@row(OLLAMA, "an HTML page comes in place of an answer", "the backend counts as absent: held, no failure counted")
async def not_ollama(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.NOT_OLLAMA, times=1)
        job = await it.completes(await it.submit())
        assert (job["attempt"], job["failures"]) == (2, 0)
        it.arm(FaultKind.NOT_OLLAMA, status=502, times=1)
        job = await it.completes(await it.submit())
        assert (job["attempt"], job["failures"]) == (2, 0)
        await it.is_well()


@row(
    OLLAMA, "another program listens at its address", "`/health` says so, jobs are held; they start when Ollama is back"
)
async def replaced(folder: Path) -> None:
    async with stage() as it:
        await it.ollama.refuse_connections()
        impostor = web.Application()
        impostor.router.add_route("*", "/{path:.*}", _welcome)
        runner = web.AppRunner(impostor, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", it.ollama.port).start()
        job_id = await it.submit()
        _, health = await it.service.call("GET", "/health")
        while "not Ollama" not in health["backends"][0].get("error", ""):
            _, health = await it.service.call("GET", "/health")
        await it.service.look(job_id, lambda job: job["status"] == "queued")
        await runner.cleanup()
        await it.ollama.accept_connections()
        assert (await it.completes(job_id))["failures"] == 0
        await it.is_well()


async def _welcome(request: web.Request) -> web.Response:
    return web.json_response({"message": "welcome"})


def _load_fault(kind: FaultKind, times: int | None = 1) -> Fault:
    return Fault(kind=kind, times=times)
