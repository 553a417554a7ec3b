"""Whether a job is over, what is read of one that failed, and how times are written, by each way of looking at it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from service.clock import moment
from service.simulated import Fault, FaultKind
from tests.support.access import ADMIN, service_with_keys
from tests.support.running import RunningService, service_in_process

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^\"]*")
BELOW = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")
"""What Python 3.7 and later read."""


async def told_of(service: RunningService, job_id: str, seq: int) -> dict[str, dict[str, Any]]:
    """The same job, by every way of looking at it."""
    path = f"/api/v1/prompt/{job_id}"
    found = {place: (await service.call("GET", f"{path}/{place}"))[1] for place in ("status", "result")}
    found["list"] = (await service.call("GET", "/api/v1/prompts"))[1]["prompts"][0]
    found["request"] = (await service.call("GET", f"/status/{seq}"))[1]
    found["requests"] = (await service.call("GET", "/requests"))[1]["requests"][0]
    async with service.session.get(f"{path}/stream") as reply:
        while not (line := await reply.content.readline()).startswith(b"data: "):
            pass
        found["event"] = json.loads(line.removeprefix(b"data: "))
    async with service.session.ws_connect("/api/v1/ws") as socket:
        await socket.send_json({"type": "subscribe", "channel": "jobs"})
        found["jobs"] = (await socket.receive_json())["jobs"][0]
        await socket.send_json({"type": "subscribe", "channel": "job", "id": job_id})
        found["job"] = (await socket.receive_json())["job"]
    return found


async def test_every_way_of_looking_says_whether_a_job_is_over_and_what_became_of_it() -> None:
    async with service_in_process(seats=1) as service:
        stall = service.stall(times=1)
        status, accepted = await service.call("POST", "/generate", {"prompt": "Why?"})
        assert (status, accepted["final"]) == (200, False)
        seq = accepted["request_id"]
        job_id = (await service.jobs.views.view_by_seq(seq)).job.id
        await service.until(job_id, "processing")
        unfinished = await told_of(service, job_id, seq)
        assert {place: fields["final"] for place, fields in unfinished.items()} == dict.fromkeys(unfinished, False)
        assert (await service.call("GET", f"/api/v1/prompt/{job_id}/result"))[0] == 200
        assert "result" not in unfinished["result"]
        stall.release()
        await service.until(job_id, "completed")
        completed = await told_of(service, job_id, seq)
        assert {place: fields["final"] for place, fields in completed.items()} == dict.fromkeys(completed, True)
        assert all("error" not in fields for fields in completed.values())

        service.ollama.arm(Fault(kind=FaultKind.ERROR, endpoint="/api/generate", status=400, message="bad", times=1))
        failed = await service.submit()
        await service.until(failed, "failed")
        fields = await told_of(service, failed, seq + 1)
        assert {place: one["final"] for place, one in fields.items()} == dict.fromkeys(fields, True)
        # A client that waits for "completed" finds the status that it does not know, and goes on as it does.
        assert (fields["status"]["status"], fields["result"]["status"]) == ("failed", "failed")
        assert fields["result"]["error"] == {"code": "refused", "message": "bad"}
        assert fields["result"]["result"] == fields["request"]["result"] == "The prompt failed: bad"
        assert "result" not in fields["status"]
        await service.call("POST", "/api/v1/prompt", {"prompt": "later", "not_before": "2999-01-01T00:00:00Z"})

        stall = service.stall(times=1)
        gone = await service.submit()
        await service.call("DELETE", f"/api/v1/prompt/{gone}")
        stall.release()
        _, cancelled = await service.call("GET", f"/api/v1/prompt/{gone}/result")
        assert (cancelled["final"], cancelled["result"]) == (True, "The prompt was cancelled: cancelled on request")


async def test_times_end_in_an_offset_below_api_v1_and_in_z_elsewhere() -> None:
    async with service_with_keys(required=False) as service:
        job_id = await service.finished()
        listed = await service.call("GET", "/api/v1/prompts?q=nothing")
        assert listed[1]["searched_until"] is None or BELOW.fullmatch(listed[1]["searched_until"])
        for place, fields in (await told_of(service, job_id, 1)).items():
            times = TIME.findall(json.dumps(fields))
            assert len(times) > 1, place
            assert all(BELOW.fullmatch(time) for time in times), (place, times)
        _, keys = await service.call("GET", "/api/keys", headers=ADMIN)
        _, token = await service.call("POST", "/api/token", headers=ADMIN)
        _, period = await service.call("POST", "/api/stats/reset", headers=ADMIN)
        times = TIME.findall(json.dumps([keys, token, period]))
        assert len(times) > 2
        assert all(time.endswith("Z") for time in times)


def test_a_moment_is_the_one_that_was_meant() -> None:
    assert moment(1_795_169_419_007) == "2026-11-20T10:10:19.007+00:00"
    assert datetime.fromisoformat(moment(1_795_169_419_007)) == datetime(2026, 11, 20, 10, 10, 19, 7_000, tzinfo=UTC)
