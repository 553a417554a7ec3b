"""Everything that can go wrong, as one tree; what HTTP makes of it is the business of ``service.api``.

ServiceError                        its text is what the user reads: the thing, why, and the remedy
├── StartError                     the start ends with this one line
│   ├── ConfigurationError         a key, its value and what to write instead
│   └── DatabaseUnusableError      held by another process, newer than the program, on a disk without WAL
├── InvalidRequestError            the caller's fault; ``field`` names the place
│   ├── IdempotencyMismatchError   the same idempotency key with another body
│   ├── BodyTooLargeError          ``server.max_body``, or more than a packed body may unpack to
│   ├── UnknownCodingError         a Content-Encoding that is not taken; ``taken`` are those that are
│   └── SlowBodyError              its body does not come, or hardly
├── NotFoundError                  no such job, model, backend or key (or none that the caller may see)
├── ContentsDeletedError           of this job only the row is left
├── UnauthenticatedError           no key, or one that is revoked or expired
│   └── UnknownKeyError            a key or a token that nobody has, where keys are required
├── ForbiddenError                 a caller that may not do this
├── LimitReachedError              the caller's own limit; ``retry_after_seconds`` says when to come again
├── UnavailableError               not now; ``retry_after_seconds`` likewise
│   ├── QueueFullError             ``queue.max_size`` or ``queue.max_bytes`` is reached
│   ├── BodiesFullError            ``server.max_bodies_bytes`` is reached, or half of it by one owner
│   ├── StoppingError              the service is going down
│   ├── CannotStoreError           the database takes no writes (disk full, gone)
│   └── NoBackendError             nobody is there to answer a call that cannot be queued
├── CallEndedError                 what the caller of a drop-in route waits for will not come
│   ├── CallCancelledError         somebody cancelled the job
│   ├── CallExpiredError           it was still queued at its deadline
│   └── CallFailedError            its attempts are used up, without a reply that could be passed on
├── StoreError                     a statement that the database refused
│   └── UniqueViolationError       a row with that key is there already
└── BackendError                   an attempt that failed; ``fault`` says what may be done about it
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

HUNG = "hung"
"""The code of a call whose model was taken to hang."""
NOT_OLLAMA = "not_ollama"
"""The code of a reply that is a proxy's, or another program's."""
OUTPUT_TOO_LARGE = "output_too_large"
"""The code of an answer beyond ``output.max_bytes``: the same request would meet that again."""

TRUNCATED = "truncated"
"""The code of a reply that ended, as HTTP has it, before it was complete."""

REPEATED = "repeated"
"""The code of a stream that Ollama has ended on purpose, since the model wrote the same token again and again."""

CONTENTS_DELETED = "the contents of this prompt were deleted, as its key or the bound on what is stored asks for"
"""What is said of a job of which only the row is left."""

OUTPUT_FAILED = "output_failed"
"""The code of what Ollama could not make a reply of, since the model wrote something else than it should."""


class ServiceError(Exception):
    """The root of everything that this program raises on purpose."""


class StartError(ServiceError):
    """The service cannot start; the text is one line for the operator."""


class ConfigurationError(StartError):
    """A configuration key has a value that cannot be used."""


class DatabaseUnusableError(StartError):
    """The database is there but must not or cannot be used."""


class InvalidRequestError(ServiceError):
    """The request cannot be understood; ``field`` is the place in it, "" for the whole."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class IdempotencyMismatchError(InvalidRequestError):
    """An idempotency key was used again with another body."""


class BodyTooLargeError(InvalidRequestError):
    """The body is larger than what is taken."""


class UnknownCodingError(InvalidRequestError):
    """The body is packed in a way that nobody here can unpack. ``taken`` are the ways that are known."""

    def __init__(self, message: str, taken: Sequence[str]) -> None:
        super().__init__(message, "Content-Encoding")
        self.taken = taken


class SlowBodyError(InvalidRequestError):
    """The body did not come in time."""


class NotFoundError(ServiceError):
    """What was asked for does not exist for this caller."""


class ContentsDeletedError(ServiceError):
    """What was asked and answered is deleted; how the job ended is still known."""

    code = "contents_deleted"


class UnauthenticatedError(ServiceError):
    """The caller must say who it is, or said something that is not true."""


class UnknownKeyError(UnauthenticatedError):
    """A key or a token was shown that nobody has: a guess, as far as can be known."""


class ForbiddenError(ServiceError):
    """The caller may not do this."""


class LimitReachedError(ServiceError):
    """A limit of this caller is reached."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class UnavailableError(ServiceError):
    """The service cannot take this now; the same request may succeed later."""

    def __init__(self, message: str, retry_after_seconds: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QueueFullError(UnavailableError):
    """The queue holds as many jobs, or bytes, as it may."""


class BodiesFullError(UnavailableError):
    """The bodies of requests under way hold as many bytes as they may."""


class StoppingError(UnavailableError):
    """The service is stopping."""


class CannotStoreError(UnavailableError):
    """The database takes no writes at the moment."""


class NoBackendError(UnavailableError):
    """No backend can be reached."""


class CallEndedError(ServiceError):
    """The reply that a caller waits for will not come."""


class CallCancelledError(CallEndedError):
    """Somebody cancelled the job."""


class CallExpiredError(CallEndedError):
    """The job was still queued at its deadline."""


class CallFailedError(CallEndedError):
    """All attempts failed. ``code`` is the stable word of the last failure."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class StoreError(ServiceError):
    """The database refused a statement."""


class UniqueViolationError(StoreError):
    """A row with that key exists already."""


class Fault(StrEnum):
    """What the failure of an attempt means for its job (wire contract 3.2, "Normalised queue rule")."""

    PERMANENT = "permanent"
    """The request's own, refused before anything was generated: it would fail again, so the job fails at once."""
    OUTPUT = "output"
    """What the model wrote: a tool call that cannot be parsed, a reply that was cut. It may write better once more."""
    ENDED = "ended"
    """What the model wrote, and Ollama has ended it on purpose: what there is of it stays, and nobody is at fault."""
    TRANSIENT = "transient"
    """The server's, or nobody knows whose: worth another attempt, after a pause."""
    RUNNER = "runner"
    """The model's runner died: worth another attempt, but a request that does it twice is poison."""
    BUSY = "busy"
    """The backend's own queue is full: hold the job, no failure."""
    ABSENT = "absent"
    """Nobody answered: hold the job, no failure of its own."""


class BackendError(ServiceError):
    """An attempt failed. ``code`` is a stable word for programs, ``status`` Ollama's HTTP status where it gave one.

    ``is_known`` says whether it is known whose fault that is; without it, ``fault`` is a guess.
    """

    def __init__(
        self, message: str, *, code: str, fault: Fault, status: int | None = None, is_known: bool = True
    ) -> None:
        super().__init__(message)
        self.code = code
        self.fault = fault
        self.status = status
        self.is_known = is_known
