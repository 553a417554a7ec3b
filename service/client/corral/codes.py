"""A stable word for each error, for programs that read JSON."""

from __future__ import annotations

from corral.errors import CorralError, JobFailedError, ResponseError
from corral.refusals import code_of_body

_FIRST = {
    "ConfigurationError": "invalid_request",
    "NotSupportedError": "not_supported",
    "QueueFullError": "queue_full",
    "CircuitOpenError": "circuit_open",
    "ConnectionFailedError": "connection_failed",
    "CallTimeoutError": "timeout",
    "StreamBrokenError": "stream_broken",
    "BadRequestError": "invalid_request",
    "AuthenticationError": "authentication_failed",
    "PermissionDeniedError": "permission_denied",
    "NotFoundError": "not_found",
    "RateLimitError": "rate_limited",
    "ServerError": "server_error",
    "ResponseError": "unexpected_response",
    "JobCancelledError": "cancelled",
}


def code_of(error: BaseException) -> str:
    """A job's own code, or the server's own word for a refusal; else one for the kind of error."""
    if isinstance(error, JobFailedError):
        return error.code or "job_failed"
    if isinstance(error, ResponseError) and (own := code_of_body(error.body)):
        return own
    if isinstance(error, CorralError):
        return next(
            (_FIRST[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _FIRST), "internal_error"
        )
    return "internal_error"
