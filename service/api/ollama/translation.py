"""What the queue must know of a call to Ollama's own API (wire contract 1.2 to 1.5)."""

from __future__ import annotations

from typing import Any

from service.api.dropin.details import CallDetails, frame_bytes, last_words, text_of
from service.api.dropin.reading import is_name
from service.config import duration_seconds
from service.job import runner_key
from service.model_limits import ModelLimits

DOOR = "ollama"

_NDJSON = "application/x-ndjson"
_MOVED = {"temperature": "temperature", "max_tokens": "num_predict"}


def describe(endpoint: str, body: dict[str, Any], accept: str, limits: ModelLimits) -> CallDetails | None:
    """None for a body that Ollama is to refuse itself: no model, or fields of a wrong type."""
    fields = _accommodated(body, accept) if endpoint == "/api/chat" else body
    model, stream = fields.get("model"), fields.get("stream")
    if not isinstance(model, str) or not is_name(model) or not isinstance(stream, bool | None):
        return None
    fields = limits.applied(endpoint, model, fields)
    options, shift = fields.get("options"), fields.get("shift")
    if not isinstance(options, dict | None):
        return None
    return CallDetails(
        model=model,
        prompt=_words(endpoint, fields),
        is_streamed=endpoint in ("/api/generate", "/api/chat") and stream is not False,
        runner=runner_key(model, options, shift if isinstance(shift, bool) else None),
        body=None if fields is body else fields,
        is_unload=_is_unload(endpoint, fields),
    )


def error_frame(endpoint: str, message: str) -> bytes:
    """The last line of a stream that broke off."""
    return frame_bytes({"error": message}) + b"\n"


def heartbeat(endpoint: str, model: str) -> bytes:
    """A line without content; a blank one would break Ollama's own clients (wire contract 5.7)."""
    content: dict[str, Any] = (
        {"response": ""} if endpoint == "/api/generate" else {"message": {"role": "assistant", "content": ""}}
    )
    line = {"model": model, "created_at": "1970-01-01T00:00:00Z", **content, "done": False}
    return frame_bytes(line) + b"\n"


def _accommodated(body: dict[str, Any], accept: str) -> dict[str, Any]:
    """The body with what Ollama does not know of a chat put where Ollama wants it; itself when there is none of it."""
    changed = dict(body)
    if "model_name" in changed:
        name = changed.pop("model_name")
        changed.setdefault("model", name)
    options = changed.get("options")
    for theirs, ours in _MOVED.items():
        value = changed.get(theirs)
        # What is no number is left where Ollama passes over it.
        if isinstance(value, int | float) and not isinstance(value, bool) and isinstance(options, dict | None):
            changed["options"] = options = {ours: changed.pop(theirs), **(options or {})}
    if changed.get("stream") is None and _NDJSON not in accept:
        # Whoever does not say that it can read a stream gets one object, which is also a stream of one line.
        changed["stream"] = False
    return body if changed == body else changed


def _is_unload(endpoint: str, fields: dict[str, Any]) -> bool:
    keep_alive = fields.get("keep_alive")
    if keep_alive is None:
        return False
    try:
        if duration_seconds(keep_alive):
            return False
    except ValueError:
        return False
    if endpoint == "/api/generate":
        return not fields.get("prompt")
    return endpoint == "/api/chat" and not fields.get("messages")


def _words(endpoint: str, fields: dict[str, Any]) -> str:
    match endpoint:
        case "/api/generate" | "/api/embeddings":
            return text_of(fields.get("prompt"))
        case "/api/embed":
            return text_of(fields.get("input"))
        case _:
            return last_words(fields.get("messages"))
