"""What a client counts."""

from __future__ import annotations

from threading import Lock
from typing import Any

from corral.shapes import JobStatus, Usage, UsageStats

_MOST_JOBS = 100_000
"""Submitted jobs whose end is looked out for; of more, the oldest are forgotten."""
_NOTHING: UsageStats = {
    "total_requests": 0,
    "successful_requests": 0,
    "failed_requests": 0,
    "total_tokens": 0,
    "total_prompt_tokens": 0,
    "total_completion_tokens": 0,
}
_FINAL = ("completed", "failed", "cancelled")


def usage_of(prompt_tokens: Any, completion_tokens: Any) -> Usage:
    """Both, and their sum; what was not reported as a number is 0."""
    prompt, completion = _count(prompt_tokens), _count(completion_tokens)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


class Stats:
    """Calls and tokens. Each call is counted once, when it ends, so that all figures fit together at any moment."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counted: UsageStats = _NOTHING.copy()
        self._jobs: dict[str, bool] = {}
        """The jobs that were submitted; True: the end is counted, its tokens are not yet known."""

    def begin_anew(self) -> None:
        """Go on in a process that was forked: the jobs are the parent's."""
        self._lock, self._jobs = Lock(), {}

    def copy(self) -> UsageStats:
        with self._lock:
            return self._counted.copy()

    def reset(self) -> None:
        with self._lock:
            self._counted = _NOTHING.copy()

    def succeeded(self, usage: Usage) -> None:
        """A call has brought an answer."""
        with self._lock:
            self._end(is_success=True)
            self._add(usage)

    def failed(self) -> None:
        """A call has ended without an answer."""
        with self._lock:
            self._end(is_success=False)

    def expect(self, job_id: str) -> None:
        """A job was submitted; its end counts when it is seen."""
        with self._lock:
            self._jobs.setdefault(job_id, False)
            if len(self._jobs) > _MOST_JOBS:
                del self._jobs[next(iter(self._jobs))]

    def saw(self, job: JobStatus, usage: Usage | None = None) -> None:
        """This is how a job stands, with its tokens where they are known."""
        if job["status"] not in _FINAL:
            return
        with self._lock:
            is_counted = self._jobs.pop(job["id"], None)
            if is_counted is None:
                return
            is_success = job["status"] == "completed"
            if not is_counted:
                self._end(is_success=is_success)
            if not is_success:
                return
            if usage is None:
                self._jobs[job["id"]] = True
            else:
                self._add(usage)

    def _end(self, *, is_success: bool) -> None:
        self._counted["total_requests"] += 1
        if is_success:
            self._counted["successful_requests"] += 1
        else:
            self._counted["failed_requests"] += 1

    def _add(self, usage: Usage) -> None:
        self._counted["total_tokens"] += usage["total_tokens"]
        self._counted["total_prompt_tokens"] += usage["prompt_tokens"]
        self._counted["total_completion_tokens"] += usage["completion_tokens"]
