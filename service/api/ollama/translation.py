"""What the queue must know of a call to Ollama's own API (wire contract 1.2 to 1.5)."""

from __future__ import annotations

import json
from typing import Any

from service.api.calls.dialect import CallDetails
from service.api.calls.reading import member
from service.api.calls.words import last_words, text_of
from service.job import runner_key

DOOR = "ollama"

_NDJSON = "application/x-ndjson"
_MOVED = {"temperature": "temperature", "max_tokens": "num_predict"}


def describe(endpoint: str, body: dict[str, Any], accept: str) -> CallDetails | None:
    """None for a body that Ollama is to refuse itself: no model, or fields of a wrong type."""
    changed = _accommodated(body, accept) if endpoint == "/api/chat" else None
    fields = body if changed is None else changed
    model = member(fields, "model") or (member(fields, "name") if endpoint == "/api/embeddings" else None)
    stream, options = member(fields, "stream"), member(fields, "options")
    if not isinstance(model, str) or not model or not isinstance(stream, bool | None):
        return None
    if not isinstance(options, dict | None):
        return None
    shift = member(fields, "shift")
    return CallDetails(
        model=model,
        prompt=_words(endpoint, fields),
        is_streamed=endpoint in ("/api/generate", "/api/chat") and stream is not False,
        runner=runner_key(model, options, shift if isinstance(shift, bool) else None),
        body=changed,
        is_unload=_is_unload(endpoint, fields),
    )


def error_frame(endpoint: str, message: str) -> bytes:
    """The last line of a stream that broke off."""
    return json.dumps({"error": message}, ensure_ascii=False).encode() + b"\n"


def heartbeat(endpoint: str, model: str) -> bytes:
    """A line without content; a blank one would break Ollama's own clients (wire contract 5.7)."""
    content: dict[str, Any] = (
        {"response": ""} if endpoint == "/api/generate" else {"message": {"role": "assistant", "content": ""}}
    )
    line = {"model": model, "created_at": "1970-01-01T00:00:00Z", **content, "done": False}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _accommodated(body: dict[str, Any], accept: str) -> dict[str, Any] | None:
    """What a chat may say that Ollama does not know, put where Ollama wants it; None when there is nothing of it."""
    changed = dict(body)
    if "model_name" in changed:
        name = changed.pop("model_name")
        changed.setdefault("model", name)
    options = member(changed, "options")
    for theirs, ours in _MOVED.items():
        if theirs in changed and isinstance(options, dict | None):
            value = changed.pop(theirs)
            options = {ours: value, **(options or {})} if value is not None else options
            changed["options"] = options if options is not None else {}
    if member(changed, "stream") is None and _NDJSON not in accept:
        # Whoever does not say that it can read a stream gets one object, which is also a stream of one line.
        changed["stream"] = False
    return None if changed == body else changed


def _is_unload(endpoint: str, fields: dict[str, Any]) -> bool:
    keep_alive = member(fields, "keep_alive")
    if isinstance(keep_alive, bool) or keep_alive not in (0, "0", "0s", "0m", "0h"):
        return False
    if endpoint == "/api/generate":
        return not member(fields, "prompt")
    return endpoint == "/api/chat" and not member(fields, "messages")


def _words(endpoint: str, fields: dict[str, Any]) -> str:
    match endpoint:
        case "/api/generate" | "/api/embeddings":
            return text_of(member(fields, "prompt"))
        case "/api/embed":
            return text_of(member(fields, "input"))
        case _:
            return last_words(member(fields, "messages"))
