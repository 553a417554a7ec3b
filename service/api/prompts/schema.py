"""What the prompts API takes."""

from __future__ import annotations

import binascii
import math
import re
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

from service.api.live.job_schema import JobReply
from service.config import duration_seconds
from service.fields import BASE64, STRICT, Duration, ModelField, PriorityField, moment_ms
from service.job import JOB_ID, Status

_LONGEST_SECONDS = 366 * 86_400
_EFFORTS = ("low", "medium", "high", "max")


def _is_base64(value: str) -> str:
    if value.startswith("data:"):
        raise ValueError('must be base64 alone, without "data:…;base64," before it')
    try:
        binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be base64") from None
    return value


def _is_format(value: Any) -> Any:
    if value is None or isinstance(value, dict) or value in ("", "json"):
        return value
    raise ValueError('must be "json" or a JSON schema')


def _is_effort(value: Any) -> Any:
    if value is None or isinstance(value, bool) or value in _EFFORTS:
        return value
    raise ValueError(f"must be true, false or one of {', '.join(_EFFORTS)}")


def _is_duration(value: Any) -> Any:
    if value is not None and not math.isfinite(duration_seconds(value)):
        raise ValueError("must be finite; a negative number means for ever")
    return value


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_MOMENT = 'must be a time such as "2026-11-20T10:10:00Z", or seconds since the epoch'


def _read_moment(value: Any) -> int | None:
    """Milliseconds since the epoch."""
    if value is None:
        return None
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        try:
            seconds = datetime.fromisoformat(value.upper()).timestamp()
        except (ValueError, OverflowError):
            raise ValueError(_MOMENT) from None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise ValueError(_MOMENT)
    return moment_ms(seconds, _MOMENT)


_Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})] | Annotated[float, Field(ge=0)] | None
Moment = Annotated[int | None, BeforeValidator(_read_moment, json_schema_input_type=_Moment)]
"""RFC 3339 or seconds since the epoch; milliseconds once it is read."""
Image = Annotated[str, Field(min_length=1, json_schema_extra=BASE64), AfterValidator(_is_base64)]


class Message(BaseModel):
    """One turn of a chat, as Ollama takes it (wire contract 1.3); what is unknown here is kept for it."""

    model_config = ConfigDict(**{**STRICT, "extra": "allow"})

    role: str = Field(min_length=1)
    content: str | None = None
    thinking: str | None = None
    images: Annotated[list[Image], Field(fail_fast=True)] | None = None
    tool_calls: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class PromptRequest(BaseModel):
    """``POST /api/v1/prompt``: a prompt, or the messages of a chat."""

    model_config = ConfigDict(
        **STRICT, json_schema_extra={"anyOf": [{"required": ["prompt"]}, {"required": ["messages"]}]}
    )

    prompt: str | None = None
    """Needed, unless there are ``messages``."""
    model: ModelField = None
    priority: PriorityField = 0
    system: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)] | None = None
    """Instead of ``prompt``: a chat."""
    tools: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    """What the model may call; for a chat only."""
    options: dict[str, Any] | None = None
    """Ollama's own, such as ``temperature`` and ``num_predict``."""
    format: Annotated[
        Any, BeforeValidator(_is_format, json_schema_input_type=Literal["", "json"] | dict[str, Any] | None)
    ] = None
    """``json``, or the JSON schema that the answer is to follow."""
    images: Annotated[list[Image], Field(fail_fast=True)] | None = None
    think: Annotated[
        Any, BeforeValidator(_is_effort, json_schema_input_type=bool | Literal["low", "medium", "high", "max"] | None)
    ] = None
    """Whether the model is to think first, and how hard."""
    keep_alive: Annotated[Any, BeforeValidator(_is_duration, json_schema_input_type=Duration | None)] = None
    """How long the model stays loaded afterwards: seconds, or a duration such as ``5m``; negative: for ever."""
    not_before: Moment = None
    """It is not begun earlier."""
    expires_in_seconds: Annotated[float, Field(gt=0, le=_LONGEST_SECONDS, allow_inf_nan=False)] | None = None
    """A job that is still queued then fails, with the code ``expired``."""


_LONGEST_WAIT_SECONDS = 60


def _as_id(value: str | None) -> str | None:
    # Ids are compared letter by letter: what is none would lie before or behind all of them, and look like an answer.
    if value is None or JOB_ID.fullmatch(value.lower()):
        return value and value.lower()
    raise ValueError("must be the id of a job")


class ResultQuery(BaseModel):
    """Whether to wait for the end of the job."""

    wait: float = Field(default=0.0, ge=0, le=_LONGEST_WAIT_SECONDS, allow_inf_nan=False)
    """How many seconds to wait until it is final."""


class StatusQuery(BaseModel):
    """Whether to wait until the job has changed."""

    wait: float = Field(default=0.0, ge=0, le=_LONGEST_WAIT_SECONDS, allow_inf_nan=False)
    """How many seconds to wait for a change."""
    status: Status | None = None
    """What the caller knows; else the status at the call."""


class ListQuery(BaseModel):
    """Which page of which jobs."""

    page: int = Field(default=1, ge=1, le=1_000_000_000)
    page_size: int = Field(default=5, ge=1, le=100)
    status: Literal["queued", "processing", "completed", "failed", "cancelled"] | None = None
    model: str | None = Field(default=None, max_length=400)
    q: str | None = Field(default=None, max_length=1000)
    """What is searched for in the prompts, the newest first, for up to 5 seconds."""
    before: Annotated[str | None, AfterValidator(_as_id)] = Field(default=None, max_length=100)
    """The id of a job: only older ones are shown. ``next`` of a page goes on behind it."""


class JobFilter(BaseModel):
    """Which jobs."""

    model_config = STRICT

    model: ModelField = None
    owner: str | None = Field(default=None, min_length=1, max_length=400)
    """Of this owner: a key, a person behind a key, or a client address. Others' are for admins, or where no keys are
    required.
    """
    key: str | None = Field(default=None, min_length=1, max_length=100)
    """Made with the key of this id, likewise."""
    q: str | None = Field(default=None, min_length=1, max_length=1000)
    """With this text in the prompt."""
    from_: Annotated[Moment, Field(alias="from")] = None
    """Made at this moment or later."""
    to: Moment = None
    """Made before this moment."""


class CancelFilter(JobFilter):
    """Which of the unfinished jobs; without a field all of them."""

    status: list[Literal["queued", "processing"]] | None = None


class CancelRequest(BaseModel):
    """``POST /api/v1/prompts/cancel``: which jobs, and whose."""

    model_config = STRICT

    filter: CancelFilter = CancelFilter()
    everybody: bool = False
    """All that the caller may see, and not only its own; implied by ``owner`` and ``key``. Without a key those of its
    address are its own.
    """
    dry_run: bool = False
    """None is cancelled: the answer says how many would be."""


class PurgeFilter(JobFilter):
    """Which jobs; at least one field."""

    status: (
        Annotated[list[Literal["queued", "processing", "completed", "failed", "cancelled"]], Field(min_length=1)] | None
    ) = None


class PurgeRequest(BaseModel):
    """``POST /api/v1/prompts/purge``: which jobs, and whose."""

    model_config = STRICT

    filter: PurgeFilter
    everybody: bool = False
    """For an admin everybody's, for a key with an owner header those of all persons behind it; and not only the
    caller's own.
    """


class DeleteQuery(BaseModel):
    """Whether anything is kept."""

    purge: bool = False
    """Nothing is: the job is removed, with all that was asked and answered."""


class PurgeReply(TypedDict):
    """What came of it."""

    purged: int
    """Jobs that are gone."""
    erased: bool
    """Whether nothing is left of them in the files of the database either. Not with PostgreSQL, which does that when it
    vacuums; nor at once while another program reads the SQLite file: then it is tried again until it is done.
    """


class CancelReply(TypedDict):
    """What came of it."""

    cancelled: int
    matching: NotRequired[int]
    """With ``dry_run``: how many would be cancelled now."""


class PromptPage(TypedDict):
    """A page of jobs, newest first."""

    prompts: list[JobReply]
    page: int
    page_size: int
    total: int
    total_pages: int
    next: str | None
    """What to give as ``before`` for the jobs that follow; null at the end of the list."""
    total_is_capped: NotRequired[bool]
    """There may be more than were counted."""
    complete: NotRequired[bool]
    """With a search, or several filters: whether all jobs were looked at that could be meant."""
    searched_until: NotRequired[str | None]
    """Likewise: the time of the job down to which was looked; null where all were, or none."""
