"""Ollama's own answers: NDJSON lines of `/api/generate` and `/api/chat` (wire contract 1.2, 1.3, 2.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from service.simulated import go_json
from service.simulated.answers import Answer, ToolCall
from service.simulated.go_json import encode_string
from service.simulated.wire import JSON, NDJSON, NO_TIME, Timing, logprob, stamp


def _metrics(answer: Answer, timing: Timing) -> bytes:
    return (
        b',"total_duration":%d,"load_duration":%d,"prompt_eval_count":%d,"prompt_eval_duration":%d,'
        b'"eval_count":%d,"eval_duration":%d'
        % (timing.total, timing.load, answer.prompt_tokens, timing.prompt, answer.token_count, timing.generation)
    )


@lru_cache(maxsize=128)
def _context(length: int) -> bytes:
    return b",".join(b"%d" % (259 + index) for index in range(length))


class _NativeFormat:
    """What both routes share. `top_logprobs` None: none were asked for."""

    stream_type = NDJSON
    stream_headers: Mapping[str, str] = {}
    whole_type = JSON

    def __init__(self, model: str, top_logprobs: int | None = None) -> None:
        self._head = b'{"model":' + encode_string(model) + b',"created_at":"'
        self._top_logprobs = top_logprobs

    def broken(self, message: str) -> bytes:
        return go_json.encode({"error": message}) + b"\n"

    def _logprobs(self, tokens: Iterator[str] | tuple[str, ...]) -> bytes:
        if self._top_logprobs is None:
            return b""
        return b',"logprobs":' + go_json.encode([logprob(token, self._top_logprobs) for token in tokens])


class GenerateFormat(_NativeFormat):
    """`/api/generate`. A raw reply has no `context`."""

    def __init__(self, model: str, top_logprobs: int | None = None, *, is_raw: bool = False) -> None:
        super().__init__(model, top_logprobs)
        self._is_raw = is_raw

    def frames(self, answer: Answer) -> Iterator[bytes]:
        head = self._head
        for thought in answer.thinking:
            yield b'%b%b","response":"","thinking":%b,"done":false}\n' % (head, stamp(), encode_string(thought))
        for token in answer.flow():
            logprobs = self._logprobs((token,))
            yield b'%b%b","response":%b,"done":false%b}\n' % (head, stamp(), encode_string(token), logprobs)

    def closing(self, answer: Answer, timing: Timing | None) -> bytes:
        return b'%b%b","response":"",%b}\n' % (self._head, stamp(), self._end(answer, timing))

    def whole(self, answer: Answer, timing: Timing | None, *, is_done: bool = True) -> bytes:
        thinking = b',"thinking":' + encode_string(answer.thought) if answer.thinking else b""
        end = self._end(answer, timing) if is_done else b'"done":false'
        logprobs = self._logprobs(answer.tokens) if timing else b""
        text = go_json.encode(answer.text)
        return b'%b%b","response":%b%b,%b%b}' % (self._head, stamp(), text, thinking, end, logprobs)

    def nothing(self) -> bytes:
        return go_json.encode({"model": "", "created_at": NO_TIME, "response": "", "done": False})

    def _end(self, answer: Answer, timing: Timing | None) -> bytes:
        end = b'"done":true,"done_reason":"%b"' % answer.done_reason.encode()
        if timing is None:
            return end
        if not self._is_raw:
            end += b',"context":[%b]' % _context(answer.prompt_tokens + answer.token_count)
        return end + _metrics(answer, timing)


class ChatFormat(_NativeFormat):
    """`/api/chat`. Tool calls come whole, on a line of their own."""

    def frames(self, answer: Answer) -> Iterator[bytes]:
        for thought in answer.thinking:
            yield self._line(b'"","thinking":' + encode_string(thought))
        if answer.tool_calls:
            yield self._line(b'""' + _tool_calls(answer.tool_calls))
        for token in answer.flow():
            yield self._line(encode_string(token), b'"done":false' + self._logprobs((token,)))

    def closing(self, answer: Answer, timing: Timing | None) -> bytes:
        return self._line(b'""', self._end(answer, timing))

    def whole(self, answer: Answer, timing: Timing | None, *, is_done: bool = True) -> bytes:
        thinking = b',"thinking":' + encode_string(answer.thought) if answer.thinking else b""
        message = go_json.encode(answer.text) + thinking + _tool_calls(answer.tool_calls)
        end = self._end(answer, timing) if is_done else b'"done":false'
        logprobs = self._logprobs(answer.tokens) if timing else b""
        return self._line(message, end + logprobs).rstrip(b"\n")

    def nothing(self) -> bytes:
        message = {"role": "", "content": ""}
        return go_json.encode({"model": "", "created_at": NO_TIME, "message": message, "done": False})

    def _line(self, message: bytes, end: bytes = b'"done":false') -> bytes:
        return b'%b%b","message":{"role":"assistant","content":%b},%b}\n' % (self._head, stamp(), message, end)

    def _end(self, answer: Answer, timing: Timing | None) -> bytes:
        end = b'"done":true,"done_reason":"%b"' % answer.done_reason.encode()
        return end if timing is None else end + _metrics(answer, timing)


def _tool_calls(calls: tuple[ToolCall, ...]) -> bytes:
    if not calls:
        return b""
    shown: list[dict[str, Any]] = [
        {"id": call.id, "function": {"index": index, "name": call.name, "arguments": call.arguments}}
        for index, call in enumerate(calls)
    ]
    return b',"tool_calls":' + go_json.encode(shown)
