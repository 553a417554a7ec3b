"""What the queue must know of a call, as each dialect's translation finds it in the body."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from service.api.dropin.reading import is_name
from service.endpoints import Endpoint
from service.job import runner_key
from service.model_limits import ModelLimits


class CallDetails(NamedTuple):
    """What is read of a body; everything else in it is for Ollama alone."""

    model: str
    prompt: str
    """The words to show in a list."""
    is_streamed: bool
    runner: str
    body: dict[str, Any] | None = None
    """The body to send where the caller's own had to be changed; None: send that."""
    is_unload: bool = False
    """The call unloads the model: it does not wait for a turn, and must never load the model."""


def describe_without_options(endpoint: Endpoint, body: dict[str, Any], limits: ModelLimits) -> CallDetails | None:
    """What the queue must know of a request that carries no ``options``; None: it names no model."""
    model = model_asked(body)
    if model is None:
        return None
    limited = limits.applied(endpoint.path, model, body)
    return CallDetails(
        model=model,
        prompt=words_of(endpoint, body),
        is_streamed=endpoint.is_streamed(body.get("stream")),
        runner=runner_key(model),
        body=None if limited is body else limited,
    )


def model_asked(body: dict[str, Any]) -> str | None:
    """The model that a request names; None where it names none that Ollama could have."""
    model = body.get("model")
    return model if isinstance(model, str) and is_name(model) else None


def frame_bytes(value: dict[str, Any]) -> bytes:
    """JSON for a frame of a stream, on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def words_of(endpoint: Endpoint, fields: dict[str, Any]) -> str:
    """The words of a request that a list shows."""
    content = fields.get(endpoint.content)
    turns = [item for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    return _last_words(turns) if turns else _text_of(content)


def _last_words(turns: list[dict[str, Any]]) -> str:
    """The text of the user's last turn in a chat of any API; of the last turn where the user has none."""
    said = [turn for turn in turns if turn.get("role") == "user"] or turns
    return _text_of(said[-1].get("content"))


def _text_of(content: Any) -> str:
    """The text of a string, of a list of strings, or of content parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "\n".join(text for text in texts if isinstance(text, str))
