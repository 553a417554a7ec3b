"""`/v1/chat/completions` and `/v1/completions`: from OpenAI's body to the native call (wire contract 1.7)."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from service.simulated import go_json, requests
from service.simulated.errors import ReplyError
from service.simulated.generation import Call
from service.simulated.native import from_messages
from service.simulated.openai_formats import ChatCompletionFormat, CompletionFormat
from service.simulated.versions import Behaviour

_IMAGE_PREFIXES = ("data:;base64,", *(f"data:image/{kind};base64," for kind in ("jpeg", "jpg", "png", "webp")))
_EFFORTS: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
    "xhigh": "max",
    "ultra": "max",
}


def read_chat_completion(body: bytes, behaviour: Behaviour) -> Call:
    fields = requests.CHAT_COMPLETION.decode(body)
    if not fields.get("messages"):
        raise ReplyError(400, "[] is too short - 'messages'")
    model = fields.get("model", "")
    messages = [native for message in fields["messages"] for native in _messages(message)]
    effort = fields["reasoning"].get("effort", "") if "reasoning" in fields else fields.get("reasoning_effort", "")
    top_logprobs = fields.get("top_logprobs", 0)
    return Call(
        route="chat",
        wire=ChatCompletionFormat(
            model,
            includes_usage=_includes_usage(fields),
            top_logprobs=top_logprobs if fields.get("logprobs") else None,
            has_finish_chunk=behaviour.has_finish_chunk,
        ),
        model=model,
        is_stream=fields.get("stream", False),
        is_empty=not messages,
        tools=tuple(fields.get("tools", ())),
        format=_format(fields.get("response_format", {})),
        options=options_of(fields),
        think=think_of(effort),
        top_logprobs=top_logprobs,
        **from_messages(messages),
    )


def read_completion(body: bytes) -> Call:
    fields = requests.COMPLETION.decode(body)
    model, prompt = fields.get("model", ""), fields.get("prompt", "")
    return Call(
        route="generate",
        wire=CompletionFormat(model, includes_usage=_includes_usage(fields)),
        model=model,
        prompt=prompt,
        is_stream=fields.get("stream", False),
        is_empty=not prompt,
        has_suffix=bool(fields.get("suffix")),
        options=options_of(fields),
        top_logprobs=max(0, fields.get("logprobs", 0)),
    )


def options_of(fields: dict[str, Any], limit: str = "max_tokens") -> dict[str, Any]:
    """The options that OpenAI's fields become; temperature and top_p are 1.0 when they are not given."""
    options: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0}
    names = ("seed", "temperature", "frequency_penalty", "presence_penalty", "top_p")
    options |= {name: fields[name] for name in names if name in fields}
    if limit in fields:
        options["num_predict"] = fields[limit]
    stop = fields.get("stop")
    if stop and isinstance(stop, str | list):
        options["stop"] = [stop] if isinstance(stop, str) else [each for each in stop if isinstance(each, str)]
    return options


def think_of(effort: str) -> bool | str | None:
    """Raises ReplyError for an effort that Ollama does not know."""
    if not effort:
        return None
    if effort not in _EFFORTS:
        known = '"minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none"'
        raise ReplyError(400, f"invalid reasoning value: {go_json.encode(effort).decode()} (must be {known})")
    return _EFFORTS[effort]


def check_image(url: str) -> None:
    """Only base64 of four kinds of image is taken, and no address."""
    if url.startswith(("http://", "https://")):
        raise ReplyError(400, "image URLs are not currently supported, please use base64 encoded data instead")
    prefix = next((each for each in _IMAGE_PREFIXES if url.startswith(each)), None)
    if prefix is None:
        raise ReplyError(400, "invalid image input")
    try:
        base64.b64decode(url.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        raise ReplyError(400, "invalid image input") from None


def _includes_usage(fields: dict[str, Any]) -> bool:
    return bool(fields.get("stream_options", {}).get("include_usage"))


def _messages(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Each part of a content becomes a message of its own, as in Ollama."""
    role, content = message.get("role", ""), message.get("content")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if isinstance(content, list):
        return [{"role": role, "content": _part(part)} for part in content]
    if "tool_calls" not in message:
        kind = "<nil>" if content is None else "map[string]interface {}" if isinstance(content, dict) else "float64"
        raise ReplyError(400, f"invalid message content type: {kind}")
    return [{"role": role, "content": ""}]


def _part(part: Any) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image_url", "image_url": {"url": str(url)}} | {"type": "image_url", "image_url": str(url)}:
            check_image(url)
            return ""
        case {"type": "input_audio", "input_audio": {"data": str()}}:
            return ""
        case _:
            raise ReplyError(400, "invalid message format")


def _format(response_format: dict[str, Any]) -> Any:
    match response_format.get("type", "").strip().lower():
        case "json_object":
            return "json"
        case "json_schema":
            return response_format.get("json_schema", {}).get("schema")
        case _:
            return None
