"""``/v1/responses`` (wire contract 1.7, 2.4)."""

from __future__ import annotations

from functools import partial
from typing import Any

from service.backend.protocols.reading import (
    Ending,
    ReplyError,
    add,
    add_tool_calls,
    counts_in,
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
_OPENING = ("response.created", "response.in_progress", "response.queued")
_LAST = ("response.completed", "response.incomplete")
_STATUSES = {"authentication_error": 401, "rate_limit_exceeded": 429}
"""What Ollama's own codes stand for (wire contract 2.4)."""


class ResponsesReader(SseReader):
    """A stream is complete that had ``response.completed``; one that was cut just stops before it.

    With the built-in web search, what would have been refused with a status is a stream of the opening events and
    ``response.failed``.
    """

    has_begun = False

    def __init__(self) -> None:
        super().__init__()
        self._has_failed = False

    def finish(self) -> Ending:
        ending = super().finish()
        return ending._replace(is_refusal=self._has_failed and not self.has_begun)

    def _read(self, event: dict[str, Any], segments: list[Segment]) -> None:
        kind = event.get("type")
        if kind in ("response.failed", "error"):
            self._has_failed = True
            # In an error's event the message is its own, without a response around it.
            raise _error(event if kind == "error" else mapping(mapping(event.get("response")).get("error")))
        if kind in _OPENING:
            self.has_opening = True
        else:
            self.has_begun = True
        if (output := _DELTAS.get(str(kind))) is not None:
            add(segments, output, event.get("delta"))
        elif kind == "response.output_item.done":
            _add_tool_call(mapping(event.get("item")), segments)
        elif kind in _LAST:
            self._is_complete = True
            self._counts = _counts(mapping(event.get("response")))


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
        raise _error(mapping(reply.get("error")))
    # Ollama says "completed" whatever happened (wire contract 1.7). Output for which no token was counted is what is
    # left of a generation that was cut off; where not even the time is set, nothing at all was generated.
    is_counted = bool(mapping(reply.get("usage")).get("total_tokens"))
    created_at = reply.get("created_at")
    is_nothing = isinstance(created_at, int) and created_at < 0
    is_complete = reply.get("status") in ("completed", "incomplete") and (is_counted or not (segments or is_nothing))
    return Ending(is_complete=is_complete, counts=_counts(reply), segments=tuple(segments))


def _add_tool_call(item: dict[str, Any], segments: list[Segment]) -> None:
    if item.get("type") == "function_call":
        add_tool_calls(segments, [item])


def _counts(response: dict[str, Any]) -> Counts:
    return counts_in(response, reason(mapping(response.get("incomplete_details")).get("reason")))


def _error(error: dict[str, Any]) -> ReplyError:
    message = error.get("message") or "the response failed without a message"
    return ReplyError(str(message), _STATUSES.get(str(error.get("code"))))


whole_response = partial(WholeReader, _read_response)
