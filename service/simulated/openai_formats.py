"""OpenAI's shapes as Ollama gives them: chat completions and completions (wire contract 1.7, 2.3)."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

from service.simulated import go_json
from service.simulated.answers import Answer
from service.simulated.go_json import encode_string
from service.simulated.wire import EVENT_STREAM, NO_EPOCH_SECONDS, PLAIN_JSON, Timing, logprob

_DONE = b"data: [DONE]\n\n"
_NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def _usage(answer: Answer, timing: Timing | None) -> dict[str, int]:
    if timing is None:
        return _NO_USAGE
    prompt, completion = answer.prompt_tokens, answer.token_count
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _data(value: Any) -> bytes:
    return b"data: " + go_json.encode(value) + b"\n\n"


def tool_calls(answer: Answer) -> list[dict[str, Any]]:
    """OpenAI's tool calls: the arguments are JSON in a string."""
    return [
        {
            "id": call.id,
            "index": index,
            "type": "function",
            "function": {"name": call.name, "arguments": go_json.encode(call.arguments).decode()},
        }
        for index, call in enumerate(answer.tool_calls)
    ]


class ChatCompletionFormat:
    """`/v1/chat/completions`. `created` and `id` are the same on every chunk; ids repeat, as Ollama's do.

    `has_finish_chunk` is the newer stream: the role in its first chunk alone, the finish reason in a chunk of its own.
    """

    stream_type = EVENT_STREAM
    stream_headers: Mapping[str, str] = {}
    whole_type = PLAIN_JSON

    def __init__(
        self,
        model: str,
        *,
        includes_usage: bool = False,
        top_logprobs: int | None = None,
        has_finish_chunk: bool = False,
    ) -> None:
        self._model = model
        self._includes_usage = includes_usage
        self._top_logprobs = top_logprobs
        self._has_finish_chunk = has_finish_chunk
        self._is_started = False
        self._id = f"chatcmpl-{random.randrange(999)}"
        self._created = int(time.time())

    def frames(self, answer: Answer) -> Iterator[bytes]:
        for thought in answer.thinking:
            yield self._chunk(self._delta("", reasoning=thought))
        if answer.tool_calls:
            yield self._chunk(self._delta("", tool_calls=tool_calls(answer)))
        flow = answer.flow()
        if self._top_logprobs is not None:
            for token in flow:
                yield self._chunk(self._delta(token), logprobs=self._logprobs((token,)))
            return
        first = next(flow, None)
        if first is None:
            return
        yield self._chunk(self._delta(first))
        # All but the token is the same in every further chunk, and a benchmark reads many of them.
        before, after = self._chunk(self._delta("\x00")).split(b'"\\u0000"')
        for token in flow:
            yield before + encode_string(token) + after

    def closing(self, answer: Answer, timing: Timing | None) -> bytes:
        if not self._has_finish_chunk:
            end = self._chunk(self._delta(""), _finish_reason(answer))
        else:
            # An answer of nothing still has a first chunk.
            end = b"" if self._is_started else self._chunk(self._delta(""))
            end += self._chunk({}, _finish_reason(answer))
        if self._includes_usage:
            usage = {**self._envelope("chat.completion.chunk"), "choices": [], "usage": _usage(answer, timing)}
            end += _data(usage)
        return end + _DONE

    def whole(self, answer: Answer, timing: Timing | None, *, is_done: bool = True) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.thinking:
            message["reasoning"] = answer.thought
        if answer.tool_calls:
            message["tool_calls"] = tool_calls(answer)
        choice: dict[str, Any] = {
            "index": 0,
            "message": message,
            "finish_reason": _finish_reason(answer) if is_done else None,
        }
        if self._top_logprobs is not None:
            choice["logprobs"] = self._logprobs(answer.tokens)
        usage = _usage(answer, timing if is_done else None)
        return go_json.encode({**self._envelope("chat.completion"), "choices": [choice], "usage": usage}) + b"\n"

    def broken(self, message: str) -> bytes:
        """The error is swallowed: an empty chunk of no model, then nothing (contract 9.1)."""
        return self._chunk(self._delta(""), model="")

    def nothing(self) -> bytes:
        envelope = {**self._envelope("chat.completion", model=""), "created": NO_EPOCH_SECONDS}
        choice = {"index": 0, "message": {"role": "", "content": ""}, "finish_reason": None}
        return go_json.encode({**envelope, "choices": [choice], "usage": _NO_USAGE}) + b"\n"

    def _delta(self, content: str, **more: Any) -> dict[str, Any]:
        role = {} if self._is_started and self._has_finish_chunk else {"role": "assistant"}
        self._is_started = True
        return {**role, "content": content, **more}

    def _chunk(
        self,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        *,
        logprobs: dict[str, Any] | None = None,
        model: str | None = None,
    ) -> bytes:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        if logprobs is not None:
            choice["logprobs"] = logprobs
        return _data({**self._envelope("chat.completion.chunk", model), "choices": [choice]})

    def _envelope(self, kind: str, model: str | None = None) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model if model is None else model,
            "system_fingerprint": "fp_ollama",
        }

    def _logprobs(self, tokens: tuple[str, ...]) -> dict[str, Any]:
        return {"content": [logprob(token, self._top_logprobs or 0) for token in tokens]}


def _finish_reason(answer: Answer) -> str:
    return "tool_calls" if answer.tool_calls else answer.done_reason


class CompletionFormat:
    """`/v1/completions`. With `include_usage` every chunk carries a usage of zeros."""

    stream_type = EVENT_STREAM
    stream_headers: Mapping[str, str] = {}
    whole_type = PLAIN_JSON

    def __init__(self, model: str, *, includes_usage: bool = False) -> None:
        self._model = model
        self._includes_usage = includes_usage
        self._id = f"cmpl-{random.randrange(999)}"

    def frames(self, answer: Answer) -> Iterator[bytes]:
        for token in itertools.chain([""] * len(answer.thinking), answer.flow()):
            yield self._chunk(token)

    def closing(self, answer: Answer, timing: Timing | None) -> bytes:
        end = self._chunk("", answer.done_reason)
        if self._includes_usage:
            end += _data({**self._envelope(), "choices": [], **self._signature(), "usage": _usage(answer, timing)})
        return end + _DONE

    def whole(self, answer: Answer, timing: Timing | None, *, is_done: bool = True) -> bytes:
        choice = {"text": answer.text, "index": 0, "finish_reason": answer.done_reason if is_done else None}
        usage = _usage(answer, timing if is_done else None)
        return go_json.encode({**self._envelope(), **self._signature(), "choices": [choice], "usage": usage}) + b"\n"

    def broken(self, message: str) -> bytes:
        return self._chunk("", model="")

    def nothing(self) -> bytes:
        envelope = {**self._envelope(), "created": NO_EPOCH_SECONDS}
        choice = {"text": "", "index": 0, "finish_reason": None}
        return go_json.encode({**envelope, **self._signature(""), "choices": [choice], "usage": _NO_USAGE}) + b"\n"

    def _chunk(self, text: str, finish_reason: str | None = None, *, model: str | None = None) -> bytes:
        choice = {"text": text, "index": 0, "finish_reason": finish_reason}
        chunk = {**self._envelope(), "choices": [choice], **self._signature(model)}
        if self._includes_usage:
            chunk["usage"] = _NO_USAGE
        return _data(chunk)

    def _envelope(self) -> dict[str, Any]:
        return {"id": self._id, "object": "text_completion", "created": int(time.time())}

    def _signature(self, model: str | None = None) -> dict[str, Any]:
        return {"model": self._model if model is None else model, "system_fingerprint": "fp_ollama"}
