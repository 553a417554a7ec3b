"""`/v1/messages`: from Anthropic's body to the native call (wire contract 1.8)."""

from __future__ import annotations

from typing import Any

from service.simulated import go_json, requests
from service.simulated.answers import WEB_SEARCH
from service.simulated.errors import ReplyError
from service.simulated.generation import Call
from service.simulated.messages_format import MessagesFormat
from service.simulated.native import from_messages


def read_messages(body: bytes) -> Call:
    fields = requests.MESSAGES.decode(body)
    _check_required(fields)
    system = _text_of(fields.get("system"))
    messages = [{"role": "system", "content": system}] if system else []
    messages += [native for message in fields["messages"] for native in _messages(message)]
    tools = fields.get("tools", ())
    options = {"num_predict": fields["max_tokens"]}
    options |= {name: fields[name] for name in ("temperature", "top_p", "top_k") if name in fields}
    if fields.get("stop_sequences"):
        options["stop"] = fields["stop_sequences"]
    return Call(
        route="chat",
        wire=MessagesFormat(fields["model"], _estimated_tokens(fields)),
        model=fields["model"],
        is_stream=fields.get("stream", False),
        is_empty=not messages,
        tools=tuple(_tool(tool) for tool in tools),
        search="silent" if any(_is_search(tool) for tool in tools) else None,
        options=options,
        think=_think(fields),
        is_thinking_relaxed=True,
        **from_messages(messages),
    )


def _check_required(fields: dict[str, Any]) -> None:
    if not fields.get("model"):
        raise ReplyError(400, "model is required")
    if fields.get("max_tokens", 0) <= 0:
        raise ReplyError(400, "max_tokens is required and must be positive")
    if not fields.get("messages"):
        raise ReplyError(400, "messages is required")


def _messages(message: dict[str, Any]) -> list[dict[str, Any]]:
    role, content = message.get("role", "").lower(), message.get("content")
    if not isinstance(content, list):
        return [{"role": role, "content": content if isinstance(content, str) else ""}]
    for block in content:
        _check_block(block)
    results = [
        {"role": "tool", "content": _text_of(block.get("content"))}
        for block in content
        if block.get("type") in ("tool_result", "web_search_tool_result")
    ]
    said = _text_of(content)
    rest = [block for block in content if block.get("type") in ("image", "tool_use", "thinking", "server_tool_use")]
    spoken = [{"role": role, "content": said}] if said or rest else []
    return results + spoken if role == "user" else spoken + results


def _check_block(block: Any) -> None:
    match block:
        case {"type": "image", "source": {"type": "base64"}}:
            return
        case {"type": "image", "source": {"type": kind}}:
            raise ReplyError(400, f"invalid image source type: {kind}. Only base64 images are supported.")
        case {"type": "image"}:
            raise ReplyError(400, "invalid image source")
        case {"type": "tool_use"}:
            for name in ("id", "name"):
                if not block.get(name):
                    raise ReplyError(400, f"tool_use block missing required '{name}' field")
        case dict():
            return
        case _:
            raise ReplyError(400, "json: cannot unmarshal into Go value of type anthropic.ContentBlock")


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(
        str(block.get("text", "")) for block in content if isinstance(block, dict) and block.get("type") == "text"
    )


def _is_search(tool: dict[str, Any]) -> bool:
    """Anthropic's built-in search, whose type ends in a date; Ollama runs it itself since 0.16.2."""
    return str(tool.get("type", "")).startswith(WEB_SEARCH)


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    name = WEB_SEARCH if _is_search(tool) else tool.get("name", "")
    return {"type": "function", "function": {"name": name, "parameters": tool.get("input_schema") or {}}}


def _think(fields: dict[str, Any]) -> bool | str | None:
    match fields.get("thinking", {}).get("type"):
        case "enabled":
            return True
        case "disabled":
            return False
    effort = str(fields.get("output_config", {}).get("effort", "")).strip().lower()
    effort = "high" if effort == "xhigh" else effort
    return effort if effort in ("high", "medium", "low", "max") else None


def _estimated_tokens(fields: dict[str, Any]) -> int:
    """A quarter of the characters: the real count is not known when the first event is sent."""
    length = _length(fields.get("system"))
    length += sum(len(message.get("role", "")) + _length(message.get("content")) for message in fields["messages"])
    length += sum(len(go_json.encode(tool)) for tool in fields.get("tools", ()))
    return max(1, length // 4)


def _length(content: Any) -> int:
    return len(content) if isinstance(content, str) else 0 if content is None else len(go_json.encode(content))
