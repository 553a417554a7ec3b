"""What every wire format has to be able to do, and how errors look in each family of routes (wire contract 3.1)."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.simulated import go_json
from service.simulated.answers import Answer
from service.simulated.errors import EmptyBodyError, ReplyError

JSON = "application/json; charset=utf-8"
PLAIN_JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
TEXT = "text/plain"
NO_TIME = "0001-01-01T00:00:00Z"  # Go's time of zero, and the same in epoch seconds
NO_EPOCH_SECONDS = -62_135_596_800


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply. Like Go's server, it is sent chunked when it is longer than 2,048 bytes, or `is_chunked`."""

    status: int
    body: bytes
    content_type: str | None = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    is_chunked: bool = False


def json_reply(value: Any, status: int = 200) -> Reply:
    return Reply(status, go_json.encode(value))


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one generation went, in nanoseconds."""

    total: int
    load: int
    prompt: int
    generation: int


class WireFormat(Protocol):
    """How one answer looks on one route. An instance serves one request, since identifiers are constant within it.

    `frames` gives the bytes of each token, `closing` what follows the last one. `whole` is the reply in one piece;
    without `timing` it has no counts, as for a load or an unload, and unless `is_done` it has no final marker.
    `broken` is what is sent when the runner dies in the middle: on `/v1` it says nothing of an error. `nothing` is a
    whole reply of which the runner sent nothing: Go's values of zero.
    """

    @property
    def stream_type(self) -> str: ...

    @property
    def stream_headers(self) -> Mapping[str, str]: ...

    @property
    def whole_type(self) -> str: ...

    def frames(self, answer: Answer) -> Iterator[bytes]: ...

    def closing(self, answer: Answer, timing: Timing | None) -> bytes: ...

    def whole(self, answer: Answer, timing: Timing | None, *, is_done: bool = True) -> bytes: ...

    def broken(self, message: str) -> bytes: ...

    def nothing(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Family:
    """The error shape of a family of routes.

    `/v1` routes are converters in front of the native handlers. What the converter itself refuses has a charset and no
    newline; what the handler behind it refuses has no charset and a newline. (Recorded so.)
    """

    shape: Callable[[int, str], Any]
    is_converted: bool = True

    def refusal(self, error: ReplyError) -> Reply:
        """The reply to a body that cannot be read or converted."""
        message = error.message
        if isinstance(error, EmptyBodyError) and not self.is_converted:
            message = "missing request body"
        return json_reply(self.shape(error.status, message), error.status)

    def failure(self, error: ReplyError, *, is_stream: bool) -> Reply:
        """The reply to a request that the native handler could not serve."""
        body = go_json.encode(self.shape(error.status, error.message))
        is_late = error.is_late and is_stream
        if self.is_converted:
            return Reply(error.status, body + b"\n", PLAIN_JSON, is_chunked=is_late)
        return Reply(error.status, body, PLAIN_JSON if is_late else JSON, is_chunked=is_late)


def _native_error(status: int, message: str) -> Any:
    return {"error": message}


def _openai_error(status: int, message: str) -> Any:
    kind = {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


_ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def _anthropic_error(status: int, message: str) -> Any:
    kind = _ANTHROPIC_KINDS.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": f"req_{secrets.token_hex(12)}"}


NATIVE = Family(_native_error, is_converted=False)
OPENAI = Family(_openai_error)
ANTHROPIC = Family(_anthropic_error)


def family_of(path: str) -> Family:
    """The family to which the route of this path belongs."""
    if path.startswith("/v1/messages"):
        return ANTHROPIC
    if path == "/v1/systemone":
        return NATIVE
    return OPENAI if path.startswith("/v1/") else NATIVE


class _Clock:
    """RFC 3339 with nanoseconds, the seconds kept: a timestamp is on every line of a stream."""

    def __init__(self) -> None:
        self._second = 0
        self._shown = b""

    def stamp(self) -> bytes:
        second, nanosecond = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._shown = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        return b"%b.%09dZ" % (self._shown, nanosecond)


stamp = _Clock().stamp


def moment(epoch_seconds: float) -> str:
    """An RFC 3339 time; for ever is a date centuries away."""
    seconds = min(epoch_seconds, 9_223_372_036.0) if math.isfinite(epoch_seconds) else 9_223_372_036.0
    whole = int(seconds)
    shown = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{shown}.{int((seconds - whole) * 1e9):09d}Z"


def logprob(token: str, top: int) -> dict[str, Any]:
    """One log probability, as all formats show it; `top` alternatives with it."""
    item: dict[str, Any] = {"token": token, "logprob": -0.25, "bytes": list(token.encode("utf-8", "replace"))}
    if top:
        item["top_logprobs"] = [
            {**_alternative(token, rank), "bytes": list(_alternative(token, rank)["token"].encode("utf-8", "replace"))}
            for rank in range(top)
        ]
    return item


def _alternative(token: str, rank: int) -> dict[str, Any]:
    return {"token": token if rank == 0 else f"{token}{rank}", "logprob": -0.25 - rank}
