"""``/v1/messages``, Anthropic's format (wire contract 1.8, 2.5)."""

from __future__ import annotations

from functools import partial
from typing import Any

from service.backend.protocols.reading import Ending, add, add_tool_calls, counts_in, decoded, items, mapping, reason
from service.backend.protocols.sse import SseReader
from service.backend.protocols.whole import WholeReader
from service.job import TEXT, THINKING, Counts, Segment


class MessagesReader(SseReader):
    """A stream is complete that had ``message_stop``; one that was cut just stops before it."""

    def __init__(self) -> None:
        super().__init__()
        self._tool_use: dict[str, Any] | None = None
        self._tool_input: list[str] = []

    def _read(self, event: dict[str, Any], segments: list[Segment]) -> None:
        kind = event.get("type")
        if kind == "content_block_delta":
            delta = mapping(event.get("delta"))
            add(segments, THINKING, delta.get("thinking"))
            add(segments, TEXT, delta.get("text"))
            if self._tool_use is not None:
                self._tool_input.append(str(delta.get("partial_json") or ""))
        elif kind == "content_block_start":
            block = mapping(event.get("content_block"))
            add(segments, THINKING, block.get("thinking"))
            add(segments, TEXT, block.get("text"))
            self._tool_use = block if block.get("type") == "tool_use" else None
        elif kind == "content_block_stop":
            self._end_tool_use(segments)
        elif kind == "message_delta":
            self._counts = _counts(mapping(event.get("delta")), event)
        elif kind == "message_stop":
            self._is_complete = True

    def _end_tool_use(self, segments: list[Segment]) -> None:
        if self._tool_use is None:
            return
        written = "".join(self._tool_input)
        if written:
            try:
                self._tool_use["input"] = decoded(written.encode("utf-8", "replace"))
            except ValueError:
                # What the model wrote is not ours to judge: it is shown as it is.
                self._tool_use["input"] = written
        add_tool_calls(segments, [self._tool_use])
        self._tool_use = None
        self._tool_input = []


def _read_message(reply: dict[str, Any]) -> Ending:
    segments: list[Segment] = []
    for block in items(reply.get("content")):
        add(segments, THINKING, block.get("thinking"))
        add(segments, TEXT, block.get("text"))
        if block.get("type") == "tool_use":
            add_tool_calls(segments, [block])
    counts = _counts(reply, reply)
    # A generation that was cut off has neither reason nor counts; with tool calls the conversion makes up a reason.
    has_reason = counts.done_reason not in (None, "tool_use")
    is_complete = reply.get("type") == "message" and (has_reason or bool(counts.completion_tokens))
    return Ending(is_complete=is_complete, counts=counts, segments=tuple(segments))


def _counts(ended: dict[str, Any], counted: dict[str, Any]) -> Counts:
    return counts_in(counted, reason(ended.get("stop_reason")))


whole_message = partial(WholeReader, _read_message)
