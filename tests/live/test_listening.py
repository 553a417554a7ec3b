"""Listen first and look then: what happens during a look is told afterwards, each job's last change once."""

from __future__ import annotations

from service.job import Job, Status
from service.live.hub import JOBS, Hub, Listening, job_channel


def job(name: str, status: Status) -> Job:
    values = dict.fromkeys(Job._fields)
    return Job(**{**values, "id": name, "status": status})  # type: ignore[arg-type]


def test_it_keeps_the_last_change_of_each_job_that_it_wants() -> None:
    hub = Hub()
    hub.publish(job("a", Status.QUEUED))
    with Listening(hub, JOBS, wants=lambda one: one.id != "c") as heard:
        for name, status in (
            ("a", Status.PROCESSING),
            ("b", Status.QUEUED),
            ("a", Status.FAILED),
            ("c", Status.QUEUED),
        ):
            hub.publish(job(name, status))
    assert {name: event.job.status for name, event in heard.changes.items()} == {"a": "failed", "b": "queued"}


def test_it_hears_nothing_once_it_is_left_also_by_an_error() -> None:
    hub, heard = Hub(), None
    try:
        with Listening(hub, JOBS) as heard:
            raise ValueError
    except ValueError:
        hub.publish(job("a", Status.QUEUED))
    assert heard is not None
    assert heard.changes == {}
    assert hub._channels == {}


def test_one_who_waits_is_woken_by_what_its_channel_tells_and_by_nothing_else() -> None:
    hub, woken = Hub(), []
    with Listening(hub, job_channel("a"), wake=lambda: woken.append("a")):
        hub.publish(job("b", Status.PROCESSING))
        assert woken == []
        hub.publish(job("a", Status.PROCESSING))
    assert woken == ["a"]
