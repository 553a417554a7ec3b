"""What the queue must know of a call to Ollama's own API (wire contract 1.2 to 1.5)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from service.api.dropin.details import CallDetails, frame_bytes, model_asked, words_of
from service.api.http.operation import NDJSON
from service.config import duration_seconds
from service.endpoints import GENERATE, Endpoint, Kind, Streams
from service.job import runner_key
from service.model_limits import ModelLimits

DOOR = "ollama"

_MOVED = {"temperature": "temperature", "max_tokens": "num_predict"}


def describe(endpoint: Endpoint, body: dict[str, Any], accept: str, limits: ModelLimits) -> CallDetails | None:
    """What the queue must know of the request; None where it names no model that Ollama could have."""
    fields = _accommodated(body, accept) if endpoint.streams is Streams.BY_CALLER else body
    model = model_asked(fields)
    if model is None:
        return None
    fields = limits.applied(endpoint.path, model, fields)
    return CallDetails(
        model=model,
        prompt=words_of(endpoint, fields),
        is_streamed=endpoint.is_streamed(fields.get("stream")),
        runner=runner_key(model, fields.get("options"), fields.get("shift")),
        body=None if fields is body else fields,
        is_unload=_is_unload(endpoint, fields),
    )


def error_frame(endpoint: str, message: str, status: int | None) -> bytes:
    """The last line of a stream: of one that broke off, or of one that a refusal has come too late for."""
    return frame_bytes({"error": message} if status is None else {"error": message, "status": status}) + b"\n"


def heartbeat(endpoint: str, model: str, now_ms: int) -> bytes:
    """A line without content; a blank one would break Ollama's own clients (wire contract 5.7)."""
    content: dict[str, Any] = (
        {"response": ""} if endpoint == GENERATE else {"message": {"role": "assistant", "content": ""}}
    )
    created_at = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return frame_bytes({"model": model, "created_at": created_at, **content, "done": False}) + b"\n"


def _accommodated(body: dict[str, Any], accept: str) -> dict[str, Any]:
    """The body with the fields that Ollama does not know in a chat moved to where it reads them; itself without any."""
    changed = dict(body)
    if "model_name" in changed:
        name = changed.pop("model_name")
        if changed.get("model") is None:
            changed["model"] = name
    options = changed.get("options")
    for theirs, ours in _MOVED.items():
        value = changed.get(theirs)
        # A value that is no number stays where it is, and Ollama ignores it.
        if isinstance(value, int | float) and not isinstance(value, bool) and isinstance(options, dict | None):
            changed["options"] = options = {ours: changed.pop(theirs), **(options or {})}
    if changed.get("stream") is None and NDJSON not in accept:
        # A caller that does not accept a stream gets one object, which is also a stream of one line.
        changed["stream"] = False
    return body if changed == body else changed


def _is_unload(endpoint: Endpoint, fields: dict[str, Any]) -> bool:
    keep_alive = fields.get("keep_alive")
    if keep_alive is None or endpoint.kind is not Kind.WRITES or fields.get(endpoint.content):
        return False
    try:
        return not duration_seconds(keep_alive)
    except ValueError:
        return False
