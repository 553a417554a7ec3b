"""``/v1/chat/completions`` and ``/v1/completions`` (wire contract 1.7, 2.3, 9.1)."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any

from service.backend.protocols.reading import Ending, add, add_tool_calls, count, items, mapping, reason
from service.backend.protocols.sse import SseReader
from service.backend.protocols.whole import WholeReader
from service.job import TEXT, THINKING, Counts, Segment


class _CompletionReader(SseReader):
    """A stream is complete that had ``[DONE]``: Ollama sends it only after ``done: true``.

    A ``finish_reason`` alone proves nothing, and may rightly be missing. An error of Ollama's in mid-stream shows only
    as a chunk without model, after which nothing more comes.
    """

    has_begun = False

    def __init__(self) -> None:
        super().__init__()
        self._is_swallowed = False

    def finish(self) -> Ending:
        ending = super().finish()
        return ending._replace(is_repeated=ending.is_repeated and not self._is_swallowed)

    def _read(self, event: dict[str, Any], segments: list[Segment]) -> None:
        choices = items(event.get("choices"))
        if event.get("model") != "":
            # A chunk without a model that comes first is all that is left of an error.
            self.has_begun = True
        for choice in choices:
            self._add_output(choice, segments)
            if choice.get("finish_reason"):
                self._counts = self._counts._replace(done_reason=reason(choice["finish_reason"]))
            elif event.get("model") == "":
                self._is_swallowed = True
        if "usage" in event:
            self._take_usage(mapping(event["usage"]), is_last=not choices)

    def _take_usage(self, usage: dict[str, Any], *, is_last: bool) -> None:
        # With include_usage every chunk of a completion has a usage of zeros, and only the last has the real one.
        if is_last or usage.get("total_tokens"):
            self._counts = _with_usage(self._counts, usage)

    def _on_done(self) -> None:
        self.has_begun = True
        self._is_complete = not self._is_swallowed

    @abstractmethod
    def _add_output(self, choice: dict[str, Any], segments: list[Segment]) -> None:
        """The output of one choice of a chunk. May raise ReplyError."""


class ChatReader(_CompletionReader):
    """``/v1/chat/completions``, streamed."""

    def _add_output(self, choice: dict[str, Any], segments: list[Segment]) -> None:
        _add_message(mapping(choice.get("delta")), segments)


class CompletionsReader(_CompletionReader):
    """``/v1/completions``, streamed."""

    def _add_output(self, choice: dict[str, Any], segments: list[Segment]) -> None:
        add(segments, TEXT, choice.get("text"))


def _read_chat(reply: dict[str, Any]) -> Ending:
    segments: list[Segment] = []
    for choice in items(reply.get("choices")):
        _add_message(mapping(choice.get("message")), segments)
    return _whole(reply, segments)


def _read_completion(reply: dict[str, Any]) -> Ending:
    segments: list[Segment] = []
    for choice in items(reply.get("choices")):
        add(segments, TEXT, choice.get("text"))
    return _whole(reply, segments)


def _whole(reply: dict[str, Any], segments: list[Segment]) -> Ending:
    usage = mapping(reply.get("usage"))
    reasons = [choice.get("finish_reason") for choice in items(reply.get("choices"))]
    # A generation that was cut off has ``done: false`` before its conversion: no reason and no counts. With tool calls
    # the conversion makes up a reason, so that there only the counts tell.
    is_counted = bool(usage.get("completion_tokens") or usage.get("total_tokens"))
    has_reason = any(given and given != "tool_calls" for given in reasons)
    is_complete = bool(reasons) and (is_counted or has_reason or "_debug_info" in reply)
    counts = _with_usage(Counts(done_reason=reason(reasons[0]) if reasons else None), usage)
    return Ending(is_complete=is_complete, counts=counts, segments=tuple(segments))


def _add_message(message: dict[str, Any], segments: list[Segment]) -> None:
    add(segments, THINKING, message.get("reasoning"))
    add(segments, TEXT, message.get("content"))
    add_tool_calls(segments, message.get("tool_calls"))


def _with_usage(counts: Counts, usage: dict[str, Any]) -> Counts:
    return counts._replace(
        prompt_tokens=count(usage.get("prompt_tokens")), completion_tokens=count(usage.get("completion_tokens"))
    )


whole_chat = partial(WholeReader, _read_chat)
whole_completion = partial(WholeReader, _read_completion)
