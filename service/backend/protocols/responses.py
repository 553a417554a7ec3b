"""``/v1/responses`` (wire contract 1.7, 2.4)."""

from __future__ import annotations

from functools import partial
from typing import Any

from service.backend.protocols.reading import (
    Ending,
    ReplyError,
    add,
    add_tool_calls,
    count,
    items,
    mapping,
    reason,
)
from service.backend.protocols.sse import SseReader
from service.backend.protocols.whole import WholeReader
from service.job import TEXT, THINKING, Counts, Segment

_DELTAS = {
    "response.output_text.delta": TEXT,
    "response.refusal.delta": TEXT,
    "response.reasoning_summary_text.delta": THINKING,
    "response.reasoning_text.delta": THINKING,
}
_LAST = ("response.completed", "response.incomplete")


class ResponsesReader(SseReader):
    """A stream is complete that had ``response.completed``; one that was cut just stops before it."""

    def _read(self, event: dict[str, Any], segments: list[Segment]) -> None:
        kind = event.get("type")
        if (output := _DELTAS.get(str(kind))) is not None:
            add(segments, output, event.get("delta"))
        elif kind == "response.output_item.done":
            _add_tool_call(mapping(event.get("item")), segments)
        elif kind in _LAST:
            self._is_complete = True
            self._counts = _counts(mapping(event.get("response")))
        elif kind == "response.failed":
            raise ReplyError(_error(mapping(event.get("response"))))
        elif kind == "error":
            # In this format an error's event holds the message itself.
            raise ReplyError(str(event.get("message") or "an error without a message"))


def _read_response(reply: dict[str, Any]) -> Ending:
    segments: list[Segment] = []
    for item in items(reply.get("output")):
        for part in items(item.get("summary")):
            add(segments, THINKING, part.get("text"))
        is_reasoning = item.get("type") == "reasoning"
        for part in items(item.get("content")):
            add(segments, THINKING if is_reasoning else TEXT, part.get("text"))
        _add_tool_call(item, segments)
    if reply.get("status") == "failed":
        raise ReplyError(_error(reply))
    # Ollama says "completed" whatever happened (wire contract 1.7). Output for which no token was counted is what is
    # left of a generation that was cut off.
    is_counted = bool(mapping(reply.get("usage")).get("total_tokens"))
    is_complete = reply.get("status") in ("completed", "incomplete") and (is_counted or not segments)
    return Ending(is_complete=is_complete, counts=_counts(reply), segments=tuple(segments))


def _add_tool_call(item: dict[str, Any], segments: list[Segment]) -> None:
    if item.get("type") == "function_call":
        add_tool_calls(segments, [item])


def _counts(response: dict[str, Any]) -> Counts:
    usage = mapping(response.get("usage"))
    return Counts(
        prompt_tokens=count(usage.get("input_tokens")),
        completion_tokens=count(usage.get("output_tokens")),
        done_reason=reason(mapping(response.get("incomplete_details")).get("reason")),
    )


def _error(response: dict[str, Any]) -> str:
    return str(mapping(response.get("error")).get("message") or "the response failed without a message")


whole_response = partial(WholeReader, _read_response)
