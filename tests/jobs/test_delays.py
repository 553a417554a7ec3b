"""Jobs that begin later, and jobs that are worth nothing after a while."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.support.access import HOUR_MS, let_pass
from tests.support.backends import until_answering
from tests.support.running import RunningService, service_in_process


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process(seats=1) as running:
        yield running


@pytest.mark.parametrize("form", ["UTC", "another zone", "seconds", "whole seconds"])
async def test_a_job_waits_until_its_time_and_others_pass_it(service: RunningService, form: str) -> None:
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    forms = {
        "UTC": moment.isoformat(),
        "another zone": moment.astimezone(timezone(timedelta(hours=-9))).isoformat(),
        "seconds": moment.timestamp(),
        "whole seconds": int(moment.timestamp()),
    }
    status, accepted = await service.call("POST", "/api/v1/prompt", {"prompt": "later", "not_before": forms[form]})
    assert (status, accepted["position"]) == (202, None)
    await service.finished("now")
    answer = await service.look(accepted["id"], lambda job: True)
    assert answer["status"] == "queued"
    assert datetime.fromisoformat(answer["next_attempt_at"]) == moment
    assert "position" not in answer
    assert service.ollama.observations.prompts == ["now"]


async def test_a_job_starts_when_its_time_has_come(service: RunningService) -> None:
    not_before = time.time() + 0.3
    answer = await service.until(await service.submit(not_before=not_before), "completed")
    assert datetime.fromisoformat(answer["started_at"]).timestamp() >= not_before - 0.002


@pytest.mark.parametrize("not_before", [0, 1_000_000_000.5, "2001-09-09T01:46:40Z", "2001-09-09 01:46:40.5+02:00"])
async def test_a_time_that_has_passed_delays_nothing(service: RunningService, not_before: Any) -> None:
    answer = await service.until(await service.submit(not_before=not_before), "completed")
    assert "next_attempt_at" not in answer


@pytest.mark.parametrize(
    "not_before", ["tomorrow", "2026-11-20", "2026-11-20T10:10:00", "2026-13-40T10:10:00Z", -1, 1e12, True, [], {}]
)
async def test_what_is_not_a_time_is_refused_by_name(service: RunningService, not_before: Any) -> None:
    status, answer = await service.call("POST", "/api/v1/prompt", {"prompt": "p", "not_before": not_before})
    assert (status, answer["field"]) == (400, "not_before")
    assert "seconds since the epoch" in answer["error"]


async def test_a_job_that_is_still_queued_at_its_deadline_fails_as_expired(service: RunningService) -> None:
    stalled = service.stall()
    running = await service.submit("first")
    await service.until(running, "processing")
    late = await service.submit("second", expires_in_seconds=0.2)
    answer = await service.until(late, "failed")
    assert answer["error"]["code"] == "expired"
    assert "expires_at" in answer
    stalled.release()
    await service.until(running, "completed")
    await service.finished("third")
    assert service.ollama.observations.prompts == ["first", "third"]


async def test_a_delayed_job_can_expire_while_it_waits_for_its_time(service: RunningService) -> None:
    stalled = service.stall()
    running = await service.submit("first")
    await service.until(running, "processing")
    delayed = await service.submit("second", not_before=time.time() + 0.1, expires_in_seconds=0.3)
    assert (await service.until(delayed, "failed"))["error"]["code"] == "expired"
    stalled.release()


async def test_a_job_that_has_begun_by_its_deadline_is_finished(service: RunningService) -> None:
    stalled = service.stall()
    job_id = await service.submit(expires_in_seconds=3600)
    await service.until(job_id, "processing")
    let_pass(service, HOUR_MS)
    expired = await service.submit(expires_in_seconds=0.1)
    await service.until(expired, "failed")
    stalled.release()
    assert (await service.until(job_id, "completed"))["attempt"] == 1


async def test_the_deadline_holds_while_a_job_waits_to_be_tried_again() -> None:
    options = {"retry.initial_seconds": 3600, "retry.cap_seconds": 3600}
    async with service_in_process(options) as service:
        await until_answering(service, 1)
        await service.ollama.refuse_connections()
        job_id = await service.submit(expires_in_seconds=0.2)
        assert (await service.until(job_id, "failed"))["error"]["code"] == "expired"


@pytest.mark.parametrize("seconds", [0, -1, 1e9, "5", True])
async def test_what_is_not_a_deadline_is_refused_by_name(service: RunningService, seconds: Any) -> None:
    status, answer = await service.call("POST", "/api/v1/prompt", {"prompt": "p", "expires_in_seconds": seconds})
    assert (status, answer["field"]) == (400, "expires_in_seconds")


async def test_a_job_that_would_expire_before_it_may_begin_is_refused(service: RunningService) -> None:
    body = {"prompt": "p", "not_before": time.time() + 86_400, "expires_in_seconds": 60}
    status, answer = await service.call("POST", "/api/v1/prompt", body)
    assert (status, answer["field"]) == (400, "expires_in_seconds")
