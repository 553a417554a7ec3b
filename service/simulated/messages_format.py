"""Anthropic's Messages as Ollama gives them: content blocks in pairs of event and data lines (wire contract 2.5)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from service.simulated import go_json
from service.simulated.answers import Answer
from service.simulated.wire import EVENT_STREAM, PLAIN_JSON, Timing


class MessagesFormat:
    """`/v1/messages`. When the runner dies the events just end: there is no `message_delta`, no `message_stop`."""

    stream_type = EVENT_STREAM
    stream_headers: Mapping[str, str] = {"Cache-Control": "no-cache", "Connection": "keep-alive"}
    whole_type = PLAIN_JSON

    def __init__(self, model: str, estimated_input_tokens: int) -> None:
        self._model = model
        self._estimated_input_tokens = estimated_input_tokens
        self._id = f"msg_{secrets.token_hex(12)}"
        self._is_started = False
        self._has_open_block = False
        self._index = 0

    def frames(self, answer: Answer) -> Iterator[bytes]:
        if answer.search is not None:
            yield self._opening() + b"".join(self._search(answer.search))
        for thought in answer.thinking:
            yield self._in_block("thinking", {"thinking": ""}, {"type": "thinking_delta", "thinking": thought})
        change = self._close_block()
        if answer.tool_calls:
            yield self._opening() + change + b"".join(self._tool_use(answer))
            change = b""
        for token in answer.flow():
            yield change + self._in_block("text", {"text": ""}, {"type": "text_delta", "text": token})
            change = b""

    def closing(self, answer: Answer, timing: Timing | None) -> bytes:
        prompt, output = (answer.prompt_tokens, answer.token_count) if timing is not None else (0, 0)
        end = self._opening() + self._close_block()
        end += _event(
            "message_delta",
            delta={"stop_reason": _stop_reason(answer)},
            usage={"input_tokens": prompt, "output_tokens": output},
        )
        return end + _event("message_stop")

    def whole(self, answer: Answer, timing: Timing | None, *, is_done: bool = True) -> bytes:
        content: list[dict[str, Any]] = list(self._search_blocks(answer.search)) if answer.search is not None else []
        if answer.thinking:
            content.append({"type": "thinking", "thinking": answer.thought})
        if answer.tokens:
            content.append({"type": "text", "text": answer.text})
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
            for call in answer.tool_calls
        ]
        usage = {"input_tokens": answer.prompt_tokens, "output_tokens": answer.token_count}
        message = self._message(content, usage if timing is not None and is_done else None)
        if is_done:
            message = {**message, "stop_reason": _stop_reason(answer), "usage": message.pop("usage")}
        return go_json.encode(message) + b"\n"

    def broken(self, message: str) -> bytes:
        return self._opening()

    def nothing(self) -> bytes:
        return go_json.encode({**self._message([], None), "model": "", "content": None}) + b"\n"

    def _opening(self) -> bytes:
        """`message_start`, which waits for the first token: nothing is sent before it."""
        if self._is_started:
            return b""
        self._is_started = True
        usage = {"input_tokens": self._estimated_input_tokens, "output_tokens": 0}
        return _event("message_start", message=self._message([], usage))

    def _message(self, content: list[dict[str, Any]], usage: dict[str, int] | None) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "usage": usage or {"input_tokens": 0, "output_tokens": 0},
        }

    def _in_block(self, kind: str, empty: dict[str, str], delta: dict[str, str]) -> bytes:
        opening = self._opening()
        if not self._has_open_block:
            self._has_open_block = True
            opening += _event("content_block_start", index=self._index, content_block={"type": kind, **empty})
        return opening + _event("content_block_delta", index=self._index, delta=delta)

    def _close_block(self) -> bytes:
        if not self._has_open_block:
            return b""
        self._has_open_block = False
        self._index += 1
        return _event("content_block_stop", index=self._index - 1)

    def _search(self, query: str) -> Iterator[bytes]:
        for block in self._search_blocks(query):
            yield _event("content_block_start", index=self._index, content_block=block)
            yield _event("content_block_stop", index=self._index)
            self._index += 1

    def _search_blocks(self, query: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the server itself did before it answered."""
        use_id = f"srvtoolu_{self._id.removeprefix('msg_')}"
        result = {"type": "web_search_result", "url": "https://example.com/", "title": "Simulated"}
        return (
            {"type": "server_tool_use", "id": use_id, "name": "web_search", "input": {"query": query}},
            {"type": "web_search_tool_result", "tool_use_id": use_id, "content": [result]},
        )

    def _tool_use(self, answer: Answer) -> Iterator[bytes]:
        for call in answer.tool_calls:
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            yield _event("content_block_start", index=self._index, content_block=block)
            delta = {"type": "input_json_delta", "partial_json": go_json.encode(call.arguments).decode()}
            yield _event("content_block_delta", index=self._index, delta=delta)
            yield _event("content_block_stop", index=self._index)
            self._index += 1


def _event(kind: str, **data: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), go_json.encode({"type": kind, **data}))


def _stop_reason(answer: Answer) -> str:
    if answer.tool_calls:
        return "tool_use"
    return {"stop": "end_turn", "length": "max_tokens"}.get(answer.done_reason, "stop_sequence")
