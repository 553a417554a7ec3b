"""How the end of a job is told to the caller that waits for its reply."""

from __future__ import annotations

from service.errors import CallCancelledError, CallExpiredError, CallFailedError
from service.job import Job, Status
from service.relay import Relay


def conclude(relay: Relay, job: Job) -> None:
    """The job is final: its reply is whole, or there will be none."""
    message = job.error_message or ""
    if job.status == Status.COMPLETED:
        relay.end()
    elif job.status == Status.CANCELLED:
        relay.fail(CallCancelledError("request canceled"))
    elif job.error_code == "expired":
        relay.fail(CallExpiredError(message))
    else:
        relay.fail(CallFailedError(message, code=job.error_code or "failed"))
