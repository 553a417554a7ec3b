"""Between requests and jobs: integer ids, and three statuses for five."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from service.api.live.job_shape import end_in_words
from service.api.requests.schema import AcceptedRequest, GenerateRequest, RequestReply, RequestRow
from service.clock import moment
from service.endpoints import GENERATE
from service.errors import CONTENTS_DELETED, InvalidRequestError
from service.job import Job, NewJob, Result, Status, runner_key
from service.model_limits import ModelLimits

DOOR = "requests"

STATUSES: Mapping[str, tuple[Status, ...]] = {
    "pending": (Status.QUEUED, Status.PROCESSING),
    "completed": (Status.COMPLETED,),
    "failed": (Status.FAILED, Status.CANCELLED),
}
_WORDS = {str(status): word for word, statuses in STATUSES.items() for status in statuses}


def to_job(request: GenerateRequest, default_model: str, limits: ModelLimits, owner: str, key_id: str | None) -> NewJob:
    """The job for a request. Raises InvalidRequestError for an empty prompt, which Ollama would answer with nothing."""
    if not request.prompt or request.prompt.isspace():
        raise InvalidRequestError("prompt: must not be empty", "prompt")
    model = request.model or default_model
    body: dict[str, Any] = {"model": model, "prompt": request.prompt, "stream": True}
    if request.system is not None:
        body["system"] = request.system
    if request.options is not None:
        body["options"] = request.options
    body = limits.applied(GENERATE, model, body)
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    runner = runner_key(model, body.get("options"))
    return NewJob(DOOR, GENERATE, model, text, request.prompt, request.priority, owner, key_id, runner=runner)


def accepted_fields(job: Job) -> AcceptedRequest:
    """The answer to a submission."""
    message = f"queued; ask for /status/{job.seq}"
    return {"request_id": job.seq, "status": _WORDS[job.status], "final": job.is_final, "message": message}


def row_fields(job: Job, prompt: str) -> RequestRow:
    """A request as a list shows it; what does not apply is null."""
    is_failed = _WORDS[job.status] == "failed"
    return {
        "id": job.seq,
        "request_id": job.seq,
        "status": _WORDS[job.status],
        "final": job.is_final,
        "prompt": prompt,
        "model": job.model,
        "error_message": _error_message(job) if is_failed else None,
        "created_at": moment(job.created_at),
        "completed_at": None if job.finished_at is None else moment(job.finished_at),
    }


def _error_message(job: Job) -> str | None:
    return job.error_message if job.contents_deleted_at is None else f"{job.error_code}: {CONTENTS_DELETED}"


def request_fields(job: Job, prompt: str, result: Result | None) -> RequestReply:
    """A request with its response."""
    response = result.joined("text") if result and job.status == Status.COMPLETED else None
    row = row_fields(job, prompt)
    fields = cast(RequestReply, {**row, "response": response, "done_reason": job.done_reason})
    if fields["status"] == "failed":
        fields["error"], fields["result"] = job.error_message, end_in_words(job)
    return fields
