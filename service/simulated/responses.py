"""`/v1/responses`: from OpenAI's newer body to the native call (wire contract 1.7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.simulated import go_json, requests
from service.simulated.answers import WEB_SEARCH
from service.simulated.errors import ReplyError
from service.simulated.generation import Call
from service.simulated.native import from_messages
from service.simulated.openai import check_image, options_of, think_of
from service.simulated.responses_format import EchoedRequest, ResponsesFormat
from service.simulated.versions import Behaviour


def read_responses(body: bytes, behaviour: Behaviour) -> Call:
    fields = requests.RESPONSES.decode(body)
    model = fields.get("model", "")
    messages = list(_messages(fields))
    reasoning = fields.get("reasoning", {})
    text_format = (fields.get("text") or {}).get("format")
    text_format = text_format if isinstance(text_format, dict) else {"type": "text"}
    echoed = EchoedRequest(
        model,
        fields.get("instructions") or None,
        fields.get("max_output_tokens"),
        fields.get("temperature", 1.0),
        fields.get("top_p", 1.0),
        fields.get("truncation", "disabled"),
        text_format,
        {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")} if any(reasoning.values()) else None,
        tuple(
            {name: tool.get(name) for name in ("type", "name", "description", "strict", "parameters")}
            for tool in fields.get("tools", ())
        ),
    )
    wire, is_stream = ResponsesFormat(echoed), fields.get("stream", False)
    tools = fields.get("tools", ())
    is_searching = behaviour.searches_web_in_responses and any(_is_search(tool) for tool in tools)
    return Call(
        route="chat",
        wire=wire,
        model=model,
        is_stream=is_stream,
        is_empty=not messages,
        tools=tuple(_tool(tool) for tool in tools),
        search="shown" if is_searching else None,
        refuse=wire.refusal if is_searching and is_stream else None,
        format=text_format.get("schema") if text_format.get("type") == "json_schema" else None,
        options=options_of(fields, "max_output_tokens"),
        think=think_of(reasoning.get("effort", "")),
        **from_messages(messages),
    )


def _is_search(tool: dict[str, Any]) -> bool:
    return tool.get("type") == WEB_SEARCH


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": WEB_SEARCH} if _is_search(tool) else tool}


def _messages(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if fields.get("instructions"):
        yield {"role": "system", "content": fields["instructions"]}
    given = fields.get("input")
    if isinstance(given, str):
        if given:
            yield {"role": "user", "content": given}
        return
    if given is not None and not isinstance(given, list):
        kind = "object" if isinstance(given, dict) else "number"
        raise ReplyError(
            400,
            f"input must be a string or array: json: cannot unmarshal {kind} into Go value of type []json.RawMessage",
        )
    for index, item in enumerate(given or []):
        yield from _item(index, item)


def _item(index: int, item: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(item, dict):
        raise ReplyError(400, f"input[{index}]: input item missing required 'type' field")
    kind = item.get("type") or ("message" if item.get("role") else "")
    match kind:
        case "message":
            yield {"role": item.get("role", ""), "content": _content(f"input[{index}]", item.get("content"))}
        case "function_call":
            yield {"role": "assistant", "content": ""}
        case "function_call_output":
            yield {"role": "tool", "content": _content(f"input[{index}]", item.get("output"))}
        case "reasoning" | "web_search_call":
            return
        case "":
            raise ReplyError(400, f"input[{index}]: input item missing required 'type' field")
        case _:
            raise ReplyError(400, f"input[{index}]: unknown input item type: {go_json.encode(kind).decode()}")


def _content(place: str, content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise ReplyError(400, f"{place}: content must be a string or array")
    return "".join(_part(f"{place}: content[{index}]", part) for index, part in enumerate(content))


def _part(place: str, part: Any) -> str:
    match part:
        case {"type": "input_text" | "output_text"}:
            return str(part.get("text", ""))
        case {"type": "input_image"}:
            check_image(str(part.get("image_url", "")))
            return ""
        case {"type": str(kind)}:
            raise ReplyError(400, f"{place}: unknown content type: {kind}")
        case _:
            raise ReplyError(400, f"{place}: unknown content type: ")
