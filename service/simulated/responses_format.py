"""OpenAI's Responses as Ollama gives them: a numbered sequence of events, their keys sorted (wire contract 2.4)."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.simulated import go_json
from service.simulated.answers import Answer
from service.simulated.errors import ReplyError
from service.simulated.openai_formats import tool_calls
from service.simulated.wire import EVENT_STREAM, PLAIN_JSON, Reply, Timing


@dataclass(frozen=True, slots=True)
class EchoedRequest:
    """What of the request every response object repeats."""

    model: str
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    truncation: str = "disabled"
    text_format: Mapping[str, Any] | None = None
    reasoning: Mapping[str, Any] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()


class ResponsesFormat:
    """`/v1/responses`. When the runner dies the events just end: `response.failed` is for the built-in web search."""

    stream_type = EVENT_STREAM
    stream_headers: Mapping[str, str] = {"Cache-Control": "no-cache", "Connection": "keep-alive"}
    whole_type = PLAIN_JSON

    def __init__(self, request: EchoedRequest) -> None:
        self._request = request
        self._id = f"resp_{random.randrange(999_999)}"
        self._item_id = f"msg_{random.randrange(999_999)}"
        self._reasoning_id = f"rs_{random.randrange(999_999)}"
        self._search_id = f"ws_{self._id.removeprefix('resp_')}_1"
        self._created = int(time.time())
        self._sequence = 0
        self._output_index = 0
        self._finished_items: list[dict[str, Any]] = []
        self._is_started = False
        self._has_text = False

    def frames(self, answer: Answer) -> Iterator[bytes]:
        opening = self._opening()
        if answer.search is not None:
            yield opening + self._begin_search(answer.search)
            yield self._finish_search(answer.search)
            opening = b""
        if answer.thinking:
            item = {"id": self._reasoning_id, "type": "reasoning", "summary": []}
            opening += self._event("response.output_item.added", output_index=self._output_index, item=item)
            for thought in answer.thinking:
                place = {"item_id": self._reasoning_id, "output_index": self._output_index, "summary_index": 0}
                yield opening + self._event("response.reasoning_summary_text.delta", **place, delta=thought)
                opening = b""
            opening = self._finish_reasoning(answer)
        if answer.tool_calls:
            yield opening + self._function_calls(answer)
            opening = b""
        for token in answer.flow():
            if not self._has_text:
                self._has_text = True
                opening += self._begin_text()
            delta = self._event("response.output_text.delta", **self._text_place(), delta=token, logprobs=[])
            yield opening + delta
            opening = b""

    def closing(self, answer: Answer, timing: Timing | None) -> bytes:
        end = self._opening()
        if self._has_text:
            part = _text_part(answer.text)
            place = {"output_index": self._output_index}
            end += self._event("response.output_text.done", **self._text_place(), text=answer.text, logprobs=[])
            end += self._event("response.content_part.done", **self._text_place(), part=part)
            end += self._event("response.output_item.done", **place, item=self._message(answer.text))
            self._finished_items.append(self._message(answer.text))
        response = self._response("completed", self._finished_items, _usage(answer, timing))
        return end + self._event("response.completed", response=response)

    def whole(self, answer: Answer, timing: Timing | None, *, is_done: bool = True) -> bytes:
        output: list[dict[str, Any]] = []
        if answer.search is not None:
            output.append(self._search_item(answer.search))
        if answer.thinking:
            output.append(self._reasoning_item(answer))
        if answer.tool_calls:
            output += [item for item, _ in self._function_items(answer)]
        else:
            output.append(self._message(answer.text))
        usage = _usage(answer, timing if is_done else None)
        return go_json.encode(self._response("completed", output, usage)) + b"\n"

    def broken(self, message: str) -> bytes:
        return self._opening()

    def nothing(self) -> bytes:
        return self.whole(Answer((), prompt_tokens=0), None, is_done=False)

    def refusal(self, error: ReplyError) -> Reply:
        """What an error becomes in a stream with the built-in web search: 200 and `response.failed` (2.4)."""
        code = {401: "authentication_error", 429: "rate_limit_exceeded"}.get(error.status, "api_error")
        response = {
            "id": self._id,
            "object": "response",
            "status": "failed",
            "model": self._request.model,
            "output": [],
            "error": {"code": code, "message": error.message},
            "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
        }
        events = self._opening() + self._event("response.failed", response=response)
        return Reply(200, events, self.stream_type, is_chunked=True)

    def _opening(self) -> bytes:
        """The first two events, which are sent with the first token and not before."""
        if self._is_started:
            return b""
        self._is_started = True
        response = self._response("in_progress", [], None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def _event(self, kind: str, **data: Any) -> bytes:
        data["type"] = kind
        data["sequence_number"] = self._sequence
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), go_json.encode(data, sort_keys=True))

    def _begin_search(self, query: str) -> bytes:
        place = {"item_id": self._search_id, "output_index": self._output_index}
        item = {**self._search_item(query), "status": "in_progress"}
        added = self._event("response.output_item.added", output_index=self._output_index, item=item)
        added += self._event("response.web_search_call.in_progress", **place)
        return added + self._event("response.web_search_call.searching", **place)

    def _finish_search(self, query: str) -> bytes:
        place = {"item_id": self._search_id, "output_index": self._output_index}
        item = self._search_item(query)
        self._finished_items.append(item)
        end = self._event("response.web_search_call.completed", **place)
        end += self._event("response.output_item.done", output_index=self._output_index, item=item)
        self._output_index += 1
        return end

    def _search_item(self, query: str) -> dict[str, Any]:
        action = {"type": "search", "query": query}
        return {"id": self._search_id, "type": "web_search_call", "status": "completed", "action": action}

    def _begin_text(self) -> bytes:
        item = {"id": self._item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        added = self._event("response.output_item.added", output_index=self._output_index, item=item)
        return added + self._event("response.content_part.added", **self._text_place(), part=_text_part(""))

    def _text_place(self) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": self._output_index, "content_index": 0}

    def _finish_reasoning(self, answer: Answer) -> bytes:
        place = {"item_id": self._reasoning_id, "output_index": self._output_index, "summary_index": 0}
        item = self._reasoning_item(answer)
        self._finished_items.append(item)
        end = self._event("response.reasoning_summary_text.done", **place, text=answer.thought)
        end += self._event("response.output_item.done", output_index=self._output_index, item=item)
        self._output_index += 1
        return end

    def _reasoning_item(self, answer: Answer) -> dict[str, Any]:
        summary = [{"type": "summary_text", "text": answer.thought}]
        return {
            "id": self._reasoning_id,
            "type": "reasoning",
            "summary": summary,
            "encrypted_content": answer.thought,
        }

    def _function_calls(self, answer: Answer) -> bytes:
        events = b""
        for item, arguments in self._function_items(answer):
            place = {"item_id": item["id"], "output_index": self._output_index}
            added = {**item, "status": "in_progress", "arguments": ""}
            events += self._event("response.output_item.added", output_index=self._output_index, item=added)
            events += self._event("response.function_call_arguments.delta", **place, delta=arguments)
            events += self._event("response.function_call_arguments.done", **place, arguments=arguments)
            events += self._event("response.output_item.done", output_index=self._output_index, item=item)
            self._finished_items.append(item)
            self._output_index += 1
        return events

    def _function_items(self, answer: Answer) -> list[tuple[dict[str, Any], str]]:
        number = random.randrange(999_999)
        return [
            (
                {
                    "id": f"fc_{number}_{call['index']}",
                    "type": "function_call",
                    "status": "completed",
                    "call_id": call["id"],
                    "name": call["function"]["name"],
                    "arguments": call["function"]["arguments"],
                },
                call["function"]["arguments"],
            )
            for call in tool_calls(answer)
        ]

    def _message(self, text: str) -> dict[str, Any]:
        return {
            "id": self._item_id,
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [_text_part(text)],
        }

    def _response(self, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
        request = self._request
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "incomplete_details": None,
            "model": request.model,
            "previous_response_id": None,
            "instructions": request.instructions,
            "output": output,
            "error": None,
            "tools": list(request.tools),
            "tool_choice": "auto",
            "truncation": request.truncation,
            "parallel_tool_calls": True,
            "text": {"format": dict(request.text_format or {"type": "text"})},
            "top_p": go_json.number(request.top_p),
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "top_logprobs": 0,
            "temperature": go_json.number(request.temperature),
            "reasoning": request.reasoning,
            "usage": usage,
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": None,
            "store": False,
            "background": False,
            "service_tier": "default",
            "metadata": {},
            "safety_identifier": None,
            "prompt_cache_key": None,
        }


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(answer: Answer, timing: Timing | None) -> dict[str, Any]:
    prompt, output = (answer.prompt_tokens, answer.token_count) if timing is not None else (0, 0)
    return {
        "input_tokens": prompt,
        "output_tokens": output,
        "total_tokens": prompt + output,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
