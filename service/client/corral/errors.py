"""Everything that can go wrong, as one tree. Each error also is what a caller of the standard library would catch.

CorralError                              request_id, attempts, and job_id where there is one
├── ConfigurationError (ValueError)      a value that makes no sense, or a client that is closed
├── NotSupportedError                    a bare Ollama has no queue
├── QueueFullError (ValueError)          queue_size calls wait already
├── CircuitOpenError (RuntimeError)      retry_after_seconds
├── ConnectionFailedError (ConnectionError)   nobody is there, or they are gone in the middle
├── CallTimeoutError (TimeoutError)      silence, or max_wait_seconds
├── StreamBrokenError                    text: what had come before
├── ResponseError                        status_code, message, body, retry_after_seconds
│   ├── BadRequestError                  400, 413, 422
│   ├── AuthenticationError              401
│   ├── PermissionDeniedError            403
│   ├── NotFoundError                    404, 410
│   ├── RateLimitError                   429
│   └── ServerError                      5xx
├── JobFailedError                       code, and job: its status
└── JobCancelledError                    job: its status
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from corral.shapes import JobStatus


class CorralError(Exception):
    """A call that did not bring an answer. ``attempts`` is how often it was tried; its text says the remedy, too."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.request_id: str | None = None
        self.attempts = 0
        self.job_id: str | None = None

    def __reduce__(self) -> tuple[Callable[..., CorralError], tuple[Any, ...]]:
        cause = _that_can_travel(self.__cause__)
        return _rebuilt, (type(self), self.args, self.__dict__.copy(), cause)

    def again(self) -> CorralError:
        """The same error for another caller."""
        return _rebuilt(type(self), self.args, self.__dict__.copy(), self.__cause__)


def _rebuilt(
    kind: type[CorralError], arguments: tuple[Any, ...], state: dict[str, Any], cause: BaseException | None
) -> CorralError:
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(state)
    error.__cause__ = cause
    return error


def _that_can_travel(cause: BaseException | None) -> BaseException | None:
    """The cause, or its words. Those of other libraries may hold connections, or a request with its key."""
    if cause is None:
        return None
    try:
        if type(cause).__module__ != "builtins" and not isinstance(cause, CorralError):
            raise TypeError("of another library")
        pickle.loads(pickle.dumps(cause))
    except Exception:
        return RuntimeError(f"{type(cause).__name__}: {cause}")
    return cause


class ConfigurationError(CorralError, ValueError):
    """A value that makes no sense, or a client that is closed."""


class NotSupportedError(CorralError):
    """The server is a bare Ollama, which has no queue."""


class QueueFullError(CorralError, ValueError):
    """As many calls wait as ``queue_size`` allows."""


class CircuitOpenError(CorralError, RuntimeError):
    """The server has failed again and again, and is left alone for a while."""

    def __init__(self, message: str = "", retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ConnectionFailedError(CorralError, ConnectionError):
    """Nobody is there, or they are gone in the middle."""


class CallTimeoutError(CorralError, TimeoutError):
    """The server said nothing for ``timeout`` seconds, or the call took longer than it may."""


class StreamBrokenError(CorralError):
    """A stream ended before its answer was whole. ``text`` is what had come."""

    def __init__(self, message: str = "", text: str = "") -> None:
        super().__init__(message)
        self.text = text


class ResponseError(CorralError):
    """The server has answered with something else than asked for.

    ``message`` is its own word, ``body`` the reply as it came, ``retry_after_seconds`` when it wants to be asked again.
    """

    def __init__(
        self,
        message: str = "",
        status_code: int = 0,
        body: bytes = b"",
        retry_after_seconds: float | None = None,
        *,
        is_final: bool = False,
    ) -> None:
        super().__init__(f"{message} (HTTP {status_code})" if status_code else message)
        self.message = message
        self.status_code = status_code
        self.body = body
        self.retry_after_seconds = retry_after_seconds
        self.is_final = is_final
        """The server says that the same request would end in the same way."""


class BadRequestError(ResponseError):
    """400, 413 or 422: the request cannot be understood or is too large."""


class AuthenticationError(ResponseError):
    """401: a key is needed, or this one is not known."""


class PermissionDeniedError(ResponseError):
    """403: the key may not do this."""


class NotFoundError(ResponseError):
    """404 or 410: it is not there."""


class RateLimitError(ResponseError):
    """429: a limit of this caller's is reached."""


class ServerError(ResponseError):
    """5xx: the server has failed."""


class JobFailedError(CorralError):
    """The job ended without an answer. ``code`` is a stable word for programs."""

    def __init__(self, message: str = "", code: str = "", job: JobStatus | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.job = job


class JobCancelledError(CorralError):
    """Somebody has cancelled the job."""

    def __init__(self, message: str = "", job: JobStatus | None = None) -> None:
        super().__init__(message)
        self.job = job


_BY_STATUS: dict[int, type[ResponseError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    410: NotFoundError,
    413: BadRequestError,
    422: BadRequestError,
    429: RateLimitError,
}


def error_of_status(
    status: int, message: str, body: bytes, retry_after_seconds: float | None, *, is_final: bool
) -> ResponseError:
    """The error for a reply with this status."""
    kind = ServerError if status >= 500 else _BY_STATUS.get(status, ResponseError)
    return kind(message, status, body, retry_after_seconds, is_final=is_final)
