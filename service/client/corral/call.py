"""One call: its name, its key, its place in the line, and how often it was tried."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from corral.errors import ConfigurationError, CorralError
from corral.places import NORMAL
from corral.settings import require_seconds

_LONGEST_REQUEST_ID = 128
_LONGEST_KEY = 255


@dataclass
class Call:
    """What is to be known of a call while it runs. ``request_id`` names it; ``key`` makes repeating it safe."""

    request_id: str
    key: str
    rank: int = NORMAL
    max_wait_seconds: float | None = None
    deadline: float | None = None
    """By the loop's clock; known as soon as the call waits for anything."""
    attempts: int = 0
    job_id: str | None = None
    is_corral: bool | None = None
    """Which server it was begun at; it stays there."""
    is_key_new: bool = True
    """Nobody else knows the key: the caller has not given it."""

    def mark(self, error: CorralError) -> None:
        """Tell in an error which call it ended."""
        error.request_id = self.request_id
        error.attempts = max(self.attempts, error.attempts)
        error.job_id = error.job_id or self.job_id


@contextmanager
def marking(call: Call) -> Iterator[None]:
    """Tell in whatever error ends the block which call it ended."""
    try:
        yield
    except CorralError as error:
        call.mark(error)
        raise


def new_call(
    request_id: str | None,
    *,
    rank: int = NORMAL,
    max_wait_seconds: Any = None,
    idempotency_key: str | None = None,
) -> Call:
    """Raises ConfigurationError for a name or key that cannot be sent."""
    if request_id is not None:
        _require_sendable("request_id", request_id, _LONGEST_REQUEST_ID)
    if idempotency_key is not None:
        _require_sendable("idempotency_key", idempotency_key, _LONGEST_KEY)
    if max_wait_seconds is not None:
        require_seconds("max_wait_seconds", max_wait_seconds)
    call = Call(request_id or str(uuid.uuid4()), idempotency_key or str(uuid.uuid4()), rank, max_wait_seconds)
    call.is_key_new = idempotency_key is None
    return call


def _require_sendable(name: str, value: object, longest: int) -> None:
    is_right = isinstance(value, str) and value.isascii() and value.isprintable() and 0 < len(value.strip()) <= longest
    if not is_right or value != str(value).strip() or len(str(value)) > longest:
        raise ConfigurationError(f"{name} = {value!r}: give 1 to {longest} printable ASCII characters")
