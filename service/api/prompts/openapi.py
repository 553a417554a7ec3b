"""What the API's document says of the prompts API."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from service.api.http.failures import PROBLEM_JSON, Problem
from service.api.http.operation import (
    EVENT_STREAM,
    IDEMPOTENCY_KEY,
    JSON,
    Operation,
    Operations,
    Parameter,
    ReplyDoc,
    refusals,
)
from service.api.live.job_schema import AcceptedReply, DoneMessage, JobReply, OutputMessage, RestartMessage, ResultReply
from service.api.prompts.schema import (
    CancelReply,
    CancelRequest,
    DeleteQuery,
    ListQuery,
    PromptPage,
    PromptRequest,
    PurgeReply,
    PurgeRequest,
    ResultQuery,
    StatusQuery,
)

_TAG = "prompts"
_PLACE = ("X-Queue-Position", "X-Estimated-Start-Seconds")
_ID = Parameter("id", "path", "The job's id.", UUID)
_REFUSED = refusals(Problem, PROBLEM_JSON, 401, 503)
_DELETED = refusals(Problem, PROBLEM_JSON, 410)
_OF_A_JOB = {**_REFUSED, **refusals(Problem, PROBLEM_JSON, 404)}
_INVALID = refusals(Problem, PROBLEM_JSON, 400)
_TOO_MANY = refusals(Problem, PROBLEM_JSON, 429)
_POSITION = "Where the reader left off: the ``id`` of the last event that it has seen."

OPERATIONS: Operations = {
    ("POST", "/api/v1/prompt"): Operation(
        summary="Submit a prompt",
        description="Answered only after the job is on disk. A prompt, or the messages of a chat.",
        tag=_TAG,
        request=PromptRequest,
        parameters=(IDEMPOTENCY_KEY,),
        replies={
            202: ReplyDoc(
                "The job is stored and waits for its turn.",
                {JSON: AcceptedReply},
                ("Location", *_PLACE, "Idempotent-Replayed"),
            ),
            **_REFUSED,
            **refusals(Problem, PROBLEM_JSON, 400, 403, 404, 408, 413, 415, 422, 429),
        },
    ),
    ("GET", "/api/v1/prompt/{id}/status"): Operation(
        summary="Ask how a job stands",
        description="With ``wait`` it is answered when the status has changed, or at once when that is final.",
        tag=_TAG,
        query=StatusQuery,
        parameters=(_ID,),
        replies={200: ReplyDoc("The job.", {JSON: JobReply}, _PLACE), **_INVALID, **_OF_A_JOB, **_TOO_MANY},
    ),
    ("GET", "/api/v1/prompt/{id}/result"): Operation(
        summary="Read what a job has brought",
        description="With ``wait`` it is answered when the job is final, or after that time.",
        tag=_TAG,
        query=ResultQuery,
        parameters=(_ID,),
        replies={
            200: ReplyDoc("The whole of it once it is completed, else where it stands.", {JSON: ResultReply}),
            **_INVALID,
            **_OF_A_JOB,
            **_DELETED,
            **_TOO_MANY,
        },
    ),
    ("GET", "/api/v1/prompt/{id}/request"): Operation(
        summary="Read what Ollama is asked for a job",
        description=(
            "The body of the call as it is sent, with the operator's limits in it. Of a job made here every field but "
            "``stream`` is one that a submission takes: posted again without it, it asks the same. "
            "One of more than 256 KiB is given as it was sent, with its names in any case. Of a form there are its "
            "fields, and in place of a file its name, type and size."
        ),
        tag=_TAG,
        parameters=(_ID,),
        replies={200: ReplyDoc("The body.", {JSON: dict[str, Any]}), **_OF_A_JOB, **_DELETED},
    ),
    ("GET", "/api/v1/prompt/{id}/stream"): Operation(
        summary="Follow a job",
        description=(
            "Server-sent events until the job is done. ``output`` is a piece of the answer, ``status`` the job as it "
            "stands, ``restart`` says that another attempt begins and what was read so far is worth nothing, ``done`` "
            "ends the stream. The ``id`` of an event, sent back, goes on behind it, also after a restart of the "
            "service."
        ),
        tag=_TAG,
        parameters=(
            _ID,
            Parameter("Last-Event-ID", "header", _POSITION),
            Parameter("last_event_id", "query", _POSITION),
            Parameter("from", "query", _POSITION),
            Parameter("token", "query", "A token from ``POST /api/token``, for who cannot send headers."),
        ),
        replies={
            200: ReplyDoc("The events.", {EVENT_STREAM: OutputMessage | JobReply | RestartMessage | DoneMessage}),
            **_INVALID,
            **_OF_A_JOB,
            **_DELETED,
            **_TOO_MANY,
        },
    ),
    ("DELETE", "/api/v1/prompt/{id}"): Operation(
        summary="Cancel a job, or remove it",
        description=(
            "Queued: at once; running: by closing the connection to Ollama; final: nothing changes. With ``purge`` the "
            "job is removed as well, with all that was asked and answered; for whoever has made it, and admins."
        ),
        tag=_TAG,
        query=DeleteQuery,
        parameters=(_ID,),
        replies={
            200: ReplyDoc("The job; with ``purge`` what came of that.", {JSON: JobReply | PurgeReply}),
            **_INVALID,
            **_OF_A_JOB,
            **refusals(Problem, PROBLEM_JSON, 403),
        },
    ),
    ("POST", "/api/v1/prompts/purge"): Operation(
        summary="Remove many jobs",
        description=(
            "With all that was asked and answered: the caller's own that the filter finds, in whatever status. Those "
            "that have not ended are cancelled first."
        ),
        tag=_TAG,
        request=PurgeRequest,
        replies={
            200: ReplyDoc("How many are gone.", {JSON: PurgeReply}),
            **_REFUSED,
            **refusals(Problem, PROBLEM_JSON, 400, 403, 408, 413, 429),
        },
    ),
    ("POST", "/api/v1/prompts/cancel"): Operation(
        summary="Cancel many jobs",
        description="The caller's own that are not final, or with ``everybody`` all that it may see. With ``dry_run`` "
        "they are counted only.",
        tag=_TAG,
        request=CancelRequest,
        replies={
            200: ReplyDoc("How many were cancelled.", {JSON: CancelReply}),
            **_REFUSED,
            **refusals(Problem, PROBLEM_JSON, 400, 403, 408, 413, 429),
        },
    ),
    ("GET", "/api/v1/prompts"): Operation(
        summary="List the jobs",
        tag=_TAG,
        query=ListQuery,
        replies={
            200: ReplyDoc("A page of them, newest first.", {JSON: PromptPage}),
            **_INVALID,
            **_REFUSED,
            **_TOO_MANY,
        },
    ),
}
