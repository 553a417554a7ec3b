"""Errors as HTTP statuses; each dialect gives them a shape of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple, NotRequired

from aiohttp import hdrs, web
from typing_extensions import TypedDict

from service.api.http.json_replies import json_bytes
from service.api.http.redaction import redacted
from service.api.http.unsaid_stream import reads_detail
from service.errors import (
    OUTPUT_FAILED,
    OUTPUT_TOO_LARGE,
    REPEATED,
    TRUNCATED,
    BodyTooLargeError,
    CallCancelledError,
    CallExpiredError,
    CallFailedError,
    ContentsDeletedError,
    ForbiddenError,
    IdempotencyMismatchError,
    InvalidRequestError,
    LimitReachedError,
    NotFoundError,
    ServiceError,
    SlowBodyError,
    UnauthenticatedError,
    UnavailableError,
    UnknownCodingError,
)

_STATUSES: Mapping[type[ServiceError], int] = {
    InvalidRequestError: 400,
    IdempotencyMismatchError: 422,
    BodyTooLargeError: 413,
    UnknownCodingError: 415,
    SlowBodyError: 408,
    NotFoundError: 404,
    ContentsDeletedError: 410,
    UnauthenticatedError: 401,
    ForbiddenError: 403,
    LimitReachedError: 429,
    UnavailableError: 503,
    CallCancelledError: 499,
    CallExpiredError: 504,
    CallFailedError: 503,
}

# Clients repeat a request that ends with 503. An answer that is too long would be so again; and what the model wrote
# was tried again here, and is what Ollama would tell with 500.
_STATUSES_OF_CODES = {OUTPUT_TOO_LARGE: 400, TRUNCATED: 500, OUTPUT_FAILED: 500, REPEATED: 500}

_TITLES = {status.value: status.phrase for status in HTTPStatus}


class Failure(NamedTuple):
    """A refusal, before a dialect gives it its shape."""

    status: int
    message: str
    field: str = ""
    headers: Mapping[str, str] = {}
    error: ServiceError | None = None
    """The error of ours that it was made from; None for aiohttp's."""
    agent: str = ""
    """What the caller calls its program."""
    has_detail: bool = False
    """Told to a caller that looks for the message in ``detail``."""


ErrorShape = Callable[[Failure], web.Response]


class ErrorShapes:
    """Which shape an error has on which path: that of the longest prefix that was registered."""

    def __init__(self, default: ErrorShape) -> None:
        self._default = default
        self._by_prefix: list[tuple[str, ErrorShape]] = []

    def register(self, prefix: str, shape: ErrorShape) -> None:
        """Errors on ``prefix``, and on every path below it, look like ``shape``."""
        self._by_prefix.append((prefix.rstrip("/"), shape))
        self._by_prefix.sort(key=lambda pair: len(pair[0]), reverse=True)

    def find(self, path: str) -> ErrorShape:
        for prefix, shape in self._by_prefix:
            if path == prefix or path.startswith(prefix + "/"):
                return shape
        return self._default


ERROR_SHAPES = web.AppKey("error_shapes", ErrorShapes)


def shaped(request: web.Request, failure: Failure) -> web.Response:
    """The answer to a request that failed so, as the errors of its path look and as its caller reads them."""
    agent = request.headers.get(hdrs.USER_AGENT, "")
    told = failure._replace(agent=agent, has_detail=reads_detail(request))
    return request.app[ERROR_SHAPES].find(request.path)(told)


def failure_of_ours(error: ServiceError) -> Failure | None:
    """How one of our own errors is answered; None for an error that should never reach a caller."""
    status = next((_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES), None)
    if status is None:
        return None
    if isinstance(error, CallFailedError):
        status = _STATUSES_OF_CODES.get(error.code, status)
    field = error.field if isinstance(error, InvalidRequestError) else ""
    headers = {}
    if isinstance(error, LimitReachedError | UnavailableError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, UnknownCodingError):
        headers["Accept-Encoding"] = ", ".join(error.taken)
    return Failure(status, str(error), field, headers, error)


def failure_of_http(error: web.HTTPException, request: web.Request) -> Failure:
    """How aiohttp's own refusals are answered: no such path, wrong method."""
    match error:
        case web.HTTPNotFound():
            return Failure(404, f"there is nothing at {redacted(request.path)}")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            message = f"{error.method} is not offered at {redacted(request.path)}; what is: {allowed}"
            return Failure(405, message, headers={"Allow": allowed})
        case _:
            return Failure(error.status, (error.text or error.reason).strip())


PROBLEM_JSON = "application/problem+json"


class Problem(TypedDict):
    """What is the matter (RFC 9457)."""

    type: str
    title: str
    """The status in words."""
    status: int
    detail: str
    """What is wrong, and what may help."""
    error: str
    """The same as ``detail``, for clients that read it here."""
    code: NotRequired[str]
    """A stable word for programs, where the status does not say enough."""
    field: NotRequired[str]
    """The place in the request that is wrong."""
    service: NotRequired[str]
    """Whose refusal it is; at ``/health``, by which clients find out what they talk to."""


def problem(failure: Failure, service: str = "") -> web.Response:
    """The shape of Corral's own routes: RFC 9457, and the message once more as ``error``."""
    title = _TITLES.get(failure.status, "Error")
    body: Problem = {
        "type": "about:blank",
        "title": title,
        "status": failure.status,
        "detail": failure.message,
        "error": failure.message,
    }
    if isinstance(failure.error, ContentsDeletedError):
        body["code"] = failure.error.code
    if failure.field:
        body["field"] = failure.field
    if service:
        body["service"] = service
    headers = {"Content-Type": PROBLEM_JSON, "Cache-Control": "no-store", **failure.headers}
    return web.Response(body=json_bytes(body), status=failure.status, headers=headers)
