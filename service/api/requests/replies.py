"""What the requests API answers."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from service.api.reply_fields import Moment, one_of

RequestStatus = Annotated[str, one_of(["pending", "completed", "failed"])]


class AcceptedRequest(TypedDict):
    """The answer to a submission."""

    request_id: int
    status: RequestStatus
    message: str


class RequestRow(TypedDict):
    """A request as a list shows it; what does not apply is null."""

    request_id: int
    status: RequestStatus
    prompt: str
    """In a list the first 200 characters."""
    model: str
    error_message: str | None
    created_at: Moment
    completed_at: Moment | None


class RequestReply(RequestRow):
    """A request with its response."""

    response: str | None


class RequestPage(TypedDict):
    """A page of requests, newest first."""

    requests: list[RequestRow]
    page: int
    per_page: int
    total: int
    total_pages: int
