"""`/api/generate` and `/api/chat`: from body to call (wire contract 1.2, 1.3)."""

from __future__ import annotations

from typing import Any

from service.simulated import requests
from service.simulated.generation import Call
from service.simulated.native_formats import ChatFormat, GenerateFormat


def read_generate(body: bytes) -> Call:
    fields = requests.GENERATE.decode(body)
    model, prompt = fields.get("model", ""), fields.get("prompt", "")
    is_raw = fields.get("raw", False)
    return Call(
        route="generate",
        wire=GenerateFormat(model, _asked_logprobs(fields), is_raw=is_raw),
        model=model,
        prompt=prompt,
        history_length=len(fields.get("system", "")) + len(fields.get("template", "")),
        is_stream=fields.get("stream", True),
        is_empty=not prompt,
        has_suffix=bool(fields.get("suffix")),
        is_raw_conflicting=is_raw and any(fields.get(name) for name in ("template", "system", "context")),
        **_shared(fields),
    )


def read_chat(body: bytes) -> Call:
    fields = requests.CHAT.decode(body)
    model, messages = fields.get("model", ""), fields.get("messages", [])
    return Call(
        route="chat",
        wire=ChatFormat(model, _asked_logprobs(fields)),
        model=model,
        is_stream=fields.get("stream", True),
        is_empty=not messages,
        tools=tuple(fields.get("tools", ())),
        **from_messages(messages),
        **_shared(fields),
    )


def from_messages(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The prompt of a conversation is what its user said last; all else is its history."""
    contents = [message.get("content", "") for message in messages]
    said = [content for message, content in zip(messages, contents, strict=True) if _role(message) == "user"]
    prompt = said[-1] if said else (contents[-1] if contents else "")
    return {
        "prompt": prompt,
        "history_length": sum(map(len, contents)) - len(prompt),
        "is_tool_result": bool(messages) and _role(messages[-1]) == "tool",
    }


def _role(message: dict[str, Any]) -> str:
    return str(message.get("role", "")).lower()


def _shared(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": fields.get("format"),
        "keep_alive_seconds": fields.get("keep_alive"),
        "options": fields.get("options", {}),
        "think": fields.get("think"),
        "shift": fields.get("shift", True),
        "truncate": fields.get("truncate", True),
        "top_logprobs": fields.get("top_logprobs", 0),
    }


def _asked_logprobs(fields: dict[str, Any]) -> int | None:
    return fields.get("top_logprobs", 0) if fields.get("logprobs") else None
