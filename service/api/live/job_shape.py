"""How a job looks to callers: one rendering, shared by status, lists, event streams and the websocket."""

from __future__ import annotations

import json
from typing import Any, cast

from service.api.live.job_schema import (
    AcceptedReply,
    DoneEvent,
    JobError,
    JobReply,
    OutputEvent,
    RestartEvent,
    ResultReply,
    Timings,
)
from service.clock import moment
from service.job import TOOL_CALLS, Job, Priority, Result, Status
from service.jobs import View
from service.live.following import Done, OutputArrived, Restarted

_PRIORITY_WORDS = {int(priority): priority.word for priority in Priority}
_WITH_ERROR = frozenset({Status.FAILED, Status.CANCELLED})


def job_fields(
    job: Job,
    position: int | None = None,
    estimated_start_seconds: float | None = None,
    *,
    position_is_exact: bool = True,
) -> JobReply:
    """A job as status, list row and ``job`` event show it; what does not apply is left out.

    ``error`` is how it ended; ``last_error`` is why the attempt before failed, of a job that is tried again.
    """
    status = job.status
    fields: JobReply = {
        "id": job.id,
        "status": status,
        "final": job.is_final,
        "model": job.model,
        "priority": _PRIORITY_WORDS[job.priority],
        "attempt": job.attempt,
        "failures": job.failures,
        "created_at": moment(job.created_at),
        "updated_at": moment(job.updated_at),
        "prompt": job.preview,
    }
    if job.request_id is not None:
        fields["request_id"] = job.request_id
    if position is not None:
        fields["position"] = position
        fields["position_is_exact"] = position_is_exact
    if estimated_start_seconds is not None:
        fields["estimated_start_seconds"] = estimated_start_seconds
    if job.started_at is not None:
        fields["started_at"] = moment(job.started_at)
    if job.finished_at is not None:
        fields["finished_at"] = moment(job.finished_at)
    if job.not_before is not None and status == Status.QUEUED:
        fields["next_attempt_at"] = moment(job.not_before)
    if job.deadline is not None:
        fields["expires_at"] = moment(job.deadline)
    if job.contents_deleted_at is not None:
        fields["contents_deleted_at"] = moment(job.contents_deleted_at)
    if job.error_code is not None:
        if status in _WITH_ERROR:
            fields["error"] = _error(job, job.error_code)
        else:
            fields["last_error"] = _error(job, job.error_code)
    return fields


def view_fields(view: View) -> JobReply:
    """A job with its place in the queue."""
    return job_fields(view.job, view.position, view.estimated_start_seconds, position_is_exact=view.is_exact)


def accepted_fields(view: View) -> AcceptedReply:
    """The answer to a submission."""
    job = view.job
    fields: AcceptedReply = {"id": job.id, "status": job.status, "final": job.is_final, "position": view.position}
    if view.position is not None:
        fields["position_is_exact"] = view.is_exact
    if view.estimated_start_seconds is not None:
        fields["estimated_start_seconds"] = view.estimated_start_seconds
    return fields


def place_headers(view: View) -> dict[str, str]:
    """The place in the queue, for clients that read headers only; none for a job that does not wait for its turn."""
    headers = {}
    if view.position is not None:
        headers["X-Queue-Position"] = str(view.position)
    if view.estimated_start_seconds is not None:
        headers["X-Estimated-Start-Seconds"] = f"{view.estimated_start_seconds:g}"
    return headers


def result_fields(job: Job, result: Result | None, prompt: str | None) -> ResultReply:
    """What a job has brought: the whole of it once it is completed, else where it stands; of one that failed or was
    cancelled a sentence that says so.

    ``prompt`` is the whole prompt of a job that is final. ``endpoint`` then tells how to take it: with
    ``/api/generate`` it is all that the model was given, else only the last words of a longer request.
    """
    fields = cast(ResultReply, job_fields(job))  # a result to which nothing is added yet
    if prompt is not None:
        fields["prompt"], fields["endpoint"] = prompt, job.endpoint
    if job.status in _WITH_ERROR:
        fields["result"] = end_in_words(job)
    if job.status != Status.COMPLETED:
        return fields
    fields["result"] = result.joined("text") if result else ""
    if result and (thinking := result.joined("thinking")):
        fields["thinking"] = thinking
    if result and (tool_calls := _tool_calls(result)):
        fields["tool_calls"] = tool_calls
    if job.done_reason is not None:
        fields["done_reason"] = job.done_reason
    if job.prompt_tokens is not None:
        fields["prompt_tokens"] = job.prompt_tokens
    if job.completion_tokens is not None:
        fields["completion_tokens"] = job.completion_tokens
    fields["timings"] = _timings(job)
    return fields


def end_in_words(job: Job) -> str:
    """What is read where the answer would be, of a job that failed or was cancelled."""
    what = "The prompt was cancelled" if job.status == Status.CANCELLED else "The prompt failed"
    return f"{what}: {job.error_message}" if job.error_message else f"{what}."


def event_fields(event: OutputArrived | Restarted | Done, job_id: str) -> OutputEvent | RestartEvent | DoneEvent:
    """A follower's event, other than the job's status, as a message; ``type`` is its name."""
    match event:
        case OutputArrived(attempt, piece):
            return {
                "type": "output",
                "id": job_id,
                "attempt": attempt,
                "offset": piece.end - len(piece.data),
                "kind": piece.kind,
                "data": piece.data,
                "position": str(event.position),
            }
        case Restarted(attempt):
            return {"type": "restart", "id": job_id, "attempt": attempt}
        case Done(job):
            done: DoneEvent = {"type": "done", "id": job_id, "status": job.status, "final": True}
            if job.done_reason is not None:
                done["done_reason"] = job.done_reason
            if job.error_code is not None:
                done["error"] = _error(job, job.error_code)
            return done


def _error(job: Job, code: str) -> JobError:
    return {"code": code, "message": job.error_message}


def _tool_calls(result: Result) -> list[Any]:
    return [call for segment in result.segments if segment.kind == TOOL_CALLS for call in json.loads(segment.data)]


def _timings(job: Job) -> Timings:
    started = job.started_at if job.started_at is not None else job.created_at
    timings: Timings = {"queue_seconds": (started - job.created_at) / 1000}
    if job.first_token_at is not None:
        timings["first_token_seconds"] = (job.first_token_at - started) / 1000
    if job.load_ms is not None:
        timings["load_seconds"] = job.load_ms / 1000
    if job.prompt_ms is not None:
        timings["prompt_seconds"] = job.prompt_ms / 1000
    if job.generation_ms is not None:
        timings["generation_seconds"] = job.generation_ms / 1000
    if job.finished_at is not None:
        timings["total_seconds"] = (job.finished_at - job.created_at) / 1000
    return timings
