"""What the requests API takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from service.fields import STRICT, ModelField, Moment, PriorityField, one_of


class GenerateRequest(BaseModel):
    """``POST /generate``."""

    model_config = STRICT

    prompt: Annotated[str, Field(json_schema_extra={"pattern": r"\S"})]
    model: ModelField = None
    priority: PriorityField = 0
    system: str | None = None
    options: dict[str, Any] | None = None


class ListQuery(BaseModel):
    """Which page of which requests."""

    page: int = Field(default=1, ge=1, le=1_000_000_000)
    per_page: int = Field(default=10, ge=1, le=100)
    status: Literal["pending", "completed", "failed"] | None = None


RequestStatus = Annotated[str, one_of(["pending", "completed", "failed"])]


IsFinal = Annotated[bool, Field(description="Whether it stays so: it is completed or failed.")]


class AcceptedRequest(TypedDict):
    """The answer to a submission."""

    request_id: int
    status: RequestStatus
    final: IsFinal
    message: str


class RequestRow(TypedDict):
    """A request as a list shows it; what does not apply is null."""

    id: int
    """The same as ``request_id``."""
    request_id: int
    status: RequestStatus
    final: IsFinal
    prompt: str
    """In a list the first 200 characters."""
    model: str
    error_message: str | None
    created_at: Moment
    completed_at: Moment | None


class RequestReply(RequestRow):
    """A request with its response."""

    response: str | None
    done_reason: str | None
    """Why the model stopped, in the words of the backend: ``stop``, ``length``, …"""
    error: NotRequired[str | None]
    """The same as ``error_message``; of a failed one only."""
    result: NotRequired[str]
    """A sentence that says that it failed, and why; of a failed one only."""


class RequestPage(TypedDict):
    """A page of requests, newest first."""

    requests: list[RequestRow]
    page: int
    current_page: int
    """The same as ``page``."""
    per_page: int
    total: int
    total_pages: int
    pages: int
    """The same as ``total_pages``."""
