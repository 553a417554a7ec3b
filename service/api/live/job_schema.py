"""The types of what callers read of a job; :mod:`service.api.live.job_shape` makes it."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.fields import JobId, Moment, PriorityWord, StatusWord, one_of

IsFinal = Annotated[bool, Field(description="Whether it stays so: it is completed, failed or cancelled.")]


class JobError(TypedDict):
    """Why a job, or an attempt of it, failed."""

    code: str
    """A stable word for programs."""
    message: str | None
    """A sentence for people."""


class JobReply(TypedDict):
    """A job as it stands; what does not apply is left out."""

    id: JobId
    status: StatusWord
    final: IsFinal
    position: NotRequired[int]
    """How many jobs go first, and this one; only while it waits for its turn."""
    position_is_exact: NotRequired[bool]
    """Whether those jobs are counted; of a job far back in a long queue they are estimated. Only beside a position."""
    estimated_start_seconds: NotRequired[float]
    """When it is likely to begin, in seconds from now."""
    model: str
    priority: PriorityWord
    attempt: int
    """Rises whenever the job is begun."""
    failures: int
    """Attempts that failed by the backend's fault and count towards the last retry."""
    created_at: Moment
    updated_at: Moment
    started_at: NotRequired[Moment]
    """When the last attempt began."""
    finished_at: NotRequired[Moment]
    next_attempt_at: NotRequired[Moment]
    """It is not begun earlier: because it was asked so, or because an attempt failed."""
    expires_at: NotRequired[Moment]
    """A job that is still queued then fails."""
    request_id: NotRequired[str]
    """What the caller called the request that made the job (``X-Request-ID``); it is not the job's own."""
    contents_deleted_at: NotRequired[Moment]
    """Since when what was asked and answered is deleted, and the words of an error with it: only this row is left."""
    prompt: str
    """The first 200 characters."""
    error: NotRequired[JobError]
    """How it ended, when it failed or was cancelled."""
    last_error: NotRequired[JobError]
    """Why the attempt before failed, of a job that is tried again."""


class AcceptedReply(TypedDict):
    """The answer to a submission."""

    id: JobId
    status: StatusWord
    final: IsFinal
    position: int | None
    """How many jobs go first, and this one; null when it does not wait for its turn."""
    position_is_exact: NotRequired[bool]
    """Whether those jobs are counted; only beside a position that is not null."""
    estimated_start_seconds: NotRequired[float]


class Timings(TypedDict, total=False):
    """Where a completed job's time went, in seconds; what Ollama did not report is left out."""

    queue_seconds: float
    """From submission to the start of the last attempt."""
    first_token_seconds: float
    """From there to the first output."""
    load_seconds: float
    """What Ollama says it spent on loading the model."""
    prompt_seconds: float
    """What Ollama says it spent on evaluating the prompt."""
    generation_seconds: float
    """What Ollama says it spent on writing."""
    total_seconds: float
    """From submission to the end."""


class ResultReply(JobReply):
    """What a job has brought: the whole of it once it is completed, else where it stands. ``prompt`` is the whole of
    it, of a job that is final.
    """

    endpoint: NotRequired[str]
    """What the model was asked by; only when the job is final."""
    result: NotRequired[str]
    """What the model has written; of a job that failed or was cancelled a sentence that says so, beside ``error``."""
    thinking: NotRequired[str]
    tool_calls: NotRequired[list[Any]]
    done_reason: NotRequired[str]
    """Why the model stopped, in the words of the backend: ``stop``, ``length``, …; absent where it gave none."""
    prompt_tokens: NotRequired[int]
    completion_tokens: NotRequired[int]
    timings: NotRequired[Timings]


class OutputMessage(TypedDict):
    """A piece of an attempt's output."""

    id: JobId
    attempt: int
    offset: int
    """Where the piece begins, in characters of the attempt's output."""
    kind: Annotated[str, one_of(["text", "thinking", "tool_calls"])]
    data: str
    position: str
    """Where to go on after it: ``attempt.offset``."""


class RestartMessage(TypedDict):
    """What was read so far is worth nothing: another attempt begins."""

    id: JobId
    attempt: int


class DoneMessage(TypedDict):
    """The job is final, and its output is whole."""

    id: JobId
    status: StatusWord
    final: IsFinal
    done_reason: NotRequired[str]
    """Why the model stopped, in the words of the backend."""
    error: NotRequired[JobError]


class OutputEvent(OutputMessage):
    """The same as a message."""

    type: Annotated[str, one_of(["output"])]


class RestartEvent(RestartMessage):
    """The same as a message."""

    type: Annotated[str, one_of(["restart"])]


class DoneEvent(DoneMessage):
    """The same as a message."""

    type: Annotated[str, one_of(["done"])]
