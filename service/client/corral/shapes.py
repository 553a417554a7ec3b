"""What comes back, and the words that go in: the types of plain dicts."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Priority = int | str | None
"""``PRIORITY_HIGH`` (0), ``PRIORITY_NORMAL`` (1) or ``PRIORITY_LOW`` (2), or "high", "normal" or "low"."""
StatusWord = Literal["queued", "processing", "completed", "failed", "cancelled"]


class Usage(TypedDict):
    """Tokens, as the model counts them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Timings(TypedDict, total=False):
    """Where the time went, in seconds; what is not known is left out."""

    queue_seconds: float
    first_token_seconds: float
    load_seconds: float
    prompt_seconds: float
    generation_seconds: float
    total_seconds: float


class Answer(TypedDict):
    """What a model has answered."""

    text: str
    model: str
    usage: Usage
    implementation_type: str
    """Always ``(REAL)``: some programs look for it."""
    request_id: str
    done_reason: str | None
    """Why the model stopped: ``stop``, ``length``, …; None where nobody said so."""
    attempts: int
    """How often this client had to try."""
    thinking: NotRequired[str]
    tool_calls: NotRequired[list[Any]]
    logprobs: NotRequired[list[Any]]
    job_id: NotRequired[str]
    timings: NotRequired[Timings]


class Chunk(TypedDict):
    """A piece of an answer while it is written."""

    text: str
    done: bool
    model: str
    thinking: NotRequired[str]
    tool_calls: NotRequired[list[Any]]
    usage: NotRequired[Usage]
    """Of the last one only, as the fields below."""
    done_reason: NotRequired[str | None]
    request_id: NotRequired[str]


class Embeddings(TypedDict):
    """One vector for each text."""

    embeddings: list[list[float]]
    model: str
    usage: Usage


class UsageStats(TypedDict):
    """What a client has counted since it was made, or since ``reset_usage_stats``."""

    total_requests: int
    successful_requests: int
    failed_requests: int
    total_tokens: int
    total_prompt_tokens: int
    total_completion_tokens: int


class JobError(TypedDict):
    """Why a job, or an attempt of it, failed."""

    code: str
    message: str | None


class AcceptedJob(TypedDict):
    """The answer to a submission."""

    id: str
    status: StatusWord
    final: bool
    position: int | None
    position_is_exact: NotRequired[bool]
    estimated_start_seconds: NotRequired[float]


class JobStatus(TypedDict):
    """A job as it stands; what does not apply is left out. Moments are RFC 3339, in UTC."""

    id: str
    status: StatusWord
    final: bool
    """Whether the status stays so."""
    position: NotRequired[int]
    position_is_exact: NotRequired[bool]
    estimated_start_seconds: NotRequired[float]
    model: str
    priority: Literal["high", "normal", "low"]
    attempt: int
    failures: int
    created_at: str
    updated_at: str
    started_at: NotRequired[str]
    finished_at: NotRequired[str]
    next_attempt_at: NotRequired[str]
    expires_at: NotRequired[str]
    contents_deleted_at: NotRequired[str]
    """Since then only this is left of it."""
    request_id: NotRequired[str]
    """What the caller called the request that made it."""
    prompt: str
    error: NotRequired[JobError]
    last_error: NotRequired[JobError]


class JobResult(JobStatus):
    """What a job has brought: the whole of it once it is completed, else where it stands."""

    endpoint: NotRequired[str]
    result: NotRequired[str]
    """Of a job that failed or was cancelled a sentence that says so."""
    thinking: NotRequired[str]
    tool_calls: NotRequired[list[Any]]
    done_reason: NotRequired[str]
    prompt_tokens: NotRequired[int]
    completion_tokens: NotRequired[int]
    timings: NotRequired[Timings]


class JobEvent(TypedDict):
    """News of a job. What comes beside ``type`` and ``position`` depends on the type."""

    type: Literal["status", "text", "thinking", "tool_calls", "restart", "done"]
    position: str | None
    """With it ``stream(from_=…)`` goes on behind this event; None: from the beginning."""
    job: NotRequired[JobStatus]
    """Of ``status``: where the job stands, with its place in the queue."""
    text: NotRequired[str]
    """Of ``text`` and ``thinking``: the piece."""
    tool_calls: NotRequired[list[Any]]
    status: NotRequired[StatusWord]
    """Of ``done``: how the job ended."""
    done_reason: NotRequired[str]
    error: NotRequired[JobError]
