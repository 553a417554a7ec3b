"""What the queue must know of a call to the OpenAI-compatible API (wire contract 1.7)."""

from __future__ import annotations

import json
from typing import Any

from service.api.calls.dialect import CallDetails
from service.api.calls.reading import member
from service.api.calls.words import last_words, text_of
from service.job import runner_key

DOOR = "openai"


def describe(endpoint: str, body: dict[str, Any], accept: str) -> CallDetails | None:
    """None for a body that Ollama is to refuse itself: no model, or fields of a wrong type."""
    model, stream = member(body, "model"), member(body, "stream")
    if not isinstance(model, str) or not model or not isinstance(stream, bool | None):
        return None
    return CallDetails(
        model=model,
        prompt=_words(endpoint, body),
        is_streamed=stream is True and endpoint != "/v1/embeddings",
        runner=runner_key(model),
    )


def error_frame(endpoint: str, message: str) -> bytes:
    """The last event of a stream that broke off; OpenAI's own clients raise on it."""
    if endpoint == "/v1/responses":
        event = {"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 0}
        return b"event: error\ndata: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"
    error = {"error": {"message": message, "type": "api_error", "param": None, "code": None}}
    return b"data: " + json.dumps(error, ensure_ascii=False).encode() + b"\n\n"


def heartbeat(endpoint: str, model: str) -> bytes:
    """A comment (wire contract 5.7)."""
    return b": waiting\n\n"


def _words(endpoint: str, body: dict[str, Any]) -> str:
    match endpoint:
        case "/v1/chat/completions":
            return last_words(member(body, "messages"))
        case "/v1/completions":
            return text_of(member(body, "prompt"))
        case _:
            given = member(body, "input")
            if isinstance(given, list) and any(isinstance(item, dict) for item in given):
                return last_words(given)
            return text_of(given)
