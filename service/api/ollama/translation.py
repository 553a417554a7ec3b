"""What the queue must know of a call to Ollama's own API (wire contract 1.2 to 1.5)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from service.api.dropin.details import CallDetails, frame_bytes, model_asked, words_of
from service.config import duration_seconds
from service.endpoints import CHAT, GENERATE, Endpoint, Kind
from service.go_json import fold
from service.job import runner_key
from service.model_limits import ModelLimits

DOOR = "ollama"

_MOVED = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "stop": "stop",
    "num_ctx": "num_ctx",
    "num_predict": "num_predict",
    "max_tokens": "num_predict",
}
"""Fields that other APIs have beside the messages, and the options that Ollama has for them; of two for one option the
first goes.
"""


def describe(endpoint: Endpoint, body: dict[str, Any], is_whole: bool, limits: ModelLimits) -> CallDetails | None:
    """What the queue must know of the request; None where it names no model that Ollama could have."""
    fields = _accommodated(endpoint, body, is_whole) if endpoint.kind is Kind.WRITES else body
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


def _accommodated(endpoint: Endpoint, body: dict[str, Any], is_whole: bool) -> dict[str, Any]:
    """The body with the fields that Ollama does not know moved to where it reads them; itself without any."""
    fields = _with_options(body)
    if endpoint.path != CHAT:
        return fields
    if "model_name" in fields:
        fields = dict(fields)
        name = fields.pop("model_name")
        if fields.get("model") is None:
            fields["model"] = name
    return {**fields, "stream": False} if is_whole else fields


def _with_options(body: dict[str, Any]) -> dict[str, Any]:
    """The body with the options that stand beside ``options`` among them; what stands there already wins. One that is
    null there says nothing, to Ollama too.
    """
    options = body.get("options")
    if body.keys().isdisjoint(_MOVED) or not isinstance(options, dict | None):
        return body
    options = options or {}
    standing = {fold(name) for name, value in options.items() if value is not None}
    left, added = dict(body), dict[str, Any]()
    for theirs, ours in _MOVED.items():
        value = _option(ours, body.get(theirs))
        # A value of another type stays where it is, and Ollama ignores it.
        if value is not None:
            del left[theirs]
            if ours not in standing:
                added.setdefault(ours, value)
    if len(left) == len(body):
        return body
    kept = {name: value for name, value in options.items() if fold(name) not in added}
    return {**left, "options": {**added, **kept}}


def _option(name: str, value: Any) -> Any:
    """The value as Ollama takes it for this option; None for one that it would refuse."""
    if name != "stop":
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    # An empty text would end every answer before its first word.
    words = [value] if isinstance(value, str) and value else value
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def _is_unload(endpoint: Endpoint, fields: dict[str, Any]) -> bool:
    keep_alive = fields.get("keep_alive")
    if keep_alive is None or endpoint.kind is not Kind.WRITES or fields.get(endpoint.content):
        return False
    try:
        return not duration_seconds(keep_alive)
    except ValueError:
        return False
