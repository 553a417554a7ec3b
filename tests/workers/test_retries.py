"""What is tried again, when, how often, and what of it can be seen."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from service.jobs.attempts import Attempts
from service.simulated import Fault, FaultKind
from tests.faults.stage import MODEL, PROMPT, stage

NOT_SOON = {"retry.initial_seconds": 3600, "retry.cap_seconds": 7200}


def pause_of(job: dict[str, Any]) -> float:
    """Seconds between a failure and the next attempt."""
    return moment(job["next_attempt_at"]) - moment(job["updated_at"])


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def test_the_pause_is_drawn_at_random_up_to_the_first_interval() -> None:
    async with stage({**NOT_SOON, "breaker.failure_threshold": 1000}) as it:
        it.arm(FaultKind.ERROR, times=None, status=500, message="something")
        jobs = [await it.submit() for _ in range(8)]
        waiting = [await it.service.look(job_id, lambda job: job["failures"] == 1) for job_id in jobs]
    pauses = [pause_of(job) for job in waiting]
    assert all(0 <= pause <= 3600 for pause in pauses)
    assert len({round(pause) for pause in pauses}) > 1
    assert {(job["status"], job["attempt"], job["last_error"]["message"]) for job in waiting} == {
        ("queued", 1, "something")
    }


async def test_a_job_that_waits_to_be_tried_again_goes_on_waiting_over_a_restart(tmp_path: Path) -> None:
    async with stage(NOT_SOON, folder=tmp_path) as it:
        it.arm(FaultKind.ERROR, status=500, message="something")
        job_id = await it.submit()
        before = await it.service.look(job_id, lambda job: job["failures"] == 1)
    async with stage(NOT_SOON, folder=tmp_path) as it:
        after = await it.service.look(job_id, lambda job: True)
        assert after == before
        # It delays nobody, and may be called off.
        await it.completes(await it.submit())
        assert (await it.service.call("DELETE", f"/api/v1/prompt/{job_id}"))[1]["status"] == "cancelled"


@pytest.mark.parametrize("retries", [0, 2])
async def test_there_are_as_many_retries_as_configured(retries: int) -> None:
    async with stage({"retry.max_retries": retries}) as it:
        it.arm(FaultKind.ERROR, times=None, status=500, message="something")
        job = await it.ends(await it.submit(), "failed")
        assert job["attempt"] == retries + 1


async def test_poison_is_what_has_killed_its_runner_as_often_as_configured() -> None:
    async with stage({"retry.poison_failures": 3}) as it:
        it.arm(FaultKind.RUNNER_KILLED, times=None, after_tokens=1)
        job = await it.ends(await it.submit(), "failed")
        assert (job["attempt"], job["error"]["code"]) == (3, "poison")


async def test_a_backend_that_answers_to_probes_but_not_to_jobs_is_left_alone() -> None:
    async with stage({"breaker.failure_threshold": 2}) as it:
        it.arm(FaultKind.NOT_OLLAMA, times=None, endpoint="/api/generate")
        for number in range(10):
            await it.submit(f"{PROMPT} {number}")
        while it.breaker.state != "open":
            await it.service.call("GET", "/health")
        probes = it.ollama.observations.requests["/api/tags"]
        while it.ollama.observations.requests["/api/tags"] < probes + 25:
            await it.service.call("GET", "/health")
        assert it.ollama.observations.requests["/api/generate"] <= 6


async def test_answers_that_end_too_early_do_not_open_the_breaker() -> None:
    async with stage({"breaker.failure_threshold": 2}) as it:
        it.arm(FaultKind.NO_DONE, times=None, after_tokens=5)
        for _ in range(3):
            job = await it.ends(await it.submit(), "failed")
            assert (job["attempt"], job["error"]["code"]) == (2, "truncated")
        assert (it.breaker.state, it.breaker.faults) == ("closed", 0)


async def test_other_failures_do_not_make_a_job_poison() -> None:
    async with stage() as it:
        it.arm(FaultKind.RUNNER_KILLED, after_tokens=1)
        it.arm(FaultKind.RESET, times=2, after_tokens=1, skip=1)
        job = await it.completes(await it.submit())
        assert (job["attempt"], job["failures"]) == (4, 3)


async def test_nothing_is_left_to_see_of_failures_but_their_number() -> None:
    async with stage() as it:
        it.arm(FaultKind.ERROR, status=500, message="something")
        job = await it.completes(await it.submit())
        assert job["failures"] == 1
        assert not {"last_error", "error", "next_attempt_at"} & set(job)


async def test_a_failure_to_conclude_a_job_costs_that_job_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(seats=1) as it:
        it.ollama.arm(Fault(kind=FaultKind.ERROR, prompt="unlucky", status=500, message="something"))
        with monkeypatch.context() as patch:
            patch.setattr(Attempts, "put_back", _broken)
            unlucky = await it.service.submit("unlucky", model=MODEL)
            job = await it.ends(unlucky, "failed")
        assert job["error"]["code"] == "internal_error"
        await it.completes(await it.submit(), PROMPT)
        await it.is_well()


async def _broken(*_: Any) -> None:
    raise ZeroDivisionError


async def test_a_job_that_is_sent_again_keeps_its_place() -> None:
    async with stage(seats=1) as it:
        before, second = it.service.stall(0, prompt="before"), it.service.stall(0, prompt="second")
        it.arm(FaultKind.ERROR, status=500, message="something")
        await it.submit("before")
        await it.ollama.observations.until(lambda seen: seen.stalled == 1)
        ids = [await it.submit(prompt) for prompt in (PROMPT, "second", "third")]
        before.release()
        await it.ollama.observations.until(lambda seen: "second" in seen.prompts)
        await it.service.look(ids[0], lambda job: job["status"] == "completed" or job.get("position") == 1)
        second.release()
        for job_id in ids:
            await it.ends(job_id, "completed")
        order = list(it.ollama.observations.prompts)
        assert [order.count(prompt) for prompt in (PROMPT, "second", "third")] == [2, 1, 1]
        assert order[-1] == "third"
