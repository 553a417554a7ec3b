"""Ollama's own formats: one JSON object a line (wire contract 1.2, 1.3, 2.1, 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from service.backend.protocols.reading import (
    Ending,
    StreamReader,
    add,
    add_tool_calls,
    count,
    decoded,
    milliseconds,
    parsed,
    reason,
)
from service.backend.protocols.whole import WholeReader
from service.job import TEXT, THINKING, Counts, Segment


def _plain_generated(chunks: Iterator[Any], texts: list[str]) -> Any:
    """Take the texts of chunks that have only what nearly all have: model, created_at, response, done.

    Returns the first chunk that has anything else; None when there is none.
    """
    for chunk in chunks:
        if chunk.__class__ is not dict or len(chunk) != 4 or "error" in chunk or chunk.get("done"):
            return chunk
        text = chunk.get("response")
        if text.__class__ is not str:
            return chunk
        texts.append(text)
    return None


def _plain_messages(chunks: Iterator[Any], texts: list[str]) -> Any:
    """The same of a chat: model, created_at, message (role, content), done."""
    for chunk in chunks:
        if chunk.__class__ is not dict or len(chunk) != 4 or "error" in chunk or chunk.get("done"):
            return chunk
        message = chunk.get("message")
        if message.__class__ is not dict or len(message) != 2:
            return chunk
        text = message.get("content")
        if text.__class__ is not str:
            return chunk
        texts.append(text)
    return None


def _add_generated(chunk: dict[str, Any], segments: list[Segment]) -> None:
    add(segments, THINKING, chunk.get("thinking"))
    add(segments, TEXT, chunk.get("response"))
    add_tool_calls(segments, chunk.get("tool_calls"))


def _add_message(chunk: dict[str, Any], segments: list[Segment]) -> None:
    message = chunk.get("message")
    if message.__class__ is not dict:
        return
    add(segments, THINKING, message.get("thinking"))
    add(segments, TEXT, message.get("content"))
    add_tool_calls(segments, message.get("tool_calls"))


def _together(lines: list[bytes]) -> list[Any] | None:
    """The values on many lines, decoded in one go, which is three times as fast. None if a line is not one value."""
    try:
        chunks = decoded(b"[%b]" % b",".join(lines))
    except ValueError:
        return None
    return chunks if len(chunks) == len(lines) else None


class _NdjsonReader(StreamReader):
    """A stream is complete that had an object with ``done: true``; blank lines say nothing."""

    _add_output: Callable[[dict[str, Any], list[Segment]], None]
    _take_plain: Callable[[Iterator[Any], list[str]], Any]

    def _take(self, line: bytes, segments: list[Segment]) -> None:
        if not line or line.isspace():
            return
        self._take_chunk(parsed(line), segments)

    def _take_all(self, lines: list[bytes], segments: list[Segment]) -> None:
        chunks = _together(lines)
        if chunks is None:
            super()._take_all(lines, segments)
            return
        left = iter(chunks)
        place = 0
        while place < len(chunks):
            texts: list[str] = []
            chunk = self._take_plain(left, texts)
            if text := "".join(texts):
                segments.append(Segment(TEXT, text))
                self._last_output.add_texts(texts)
            place += len(texts)
            if place < len(chunks):
                if chunk.__class__ is dict and "error" not in chunk:
                    self._take_chunk(chunk, segments)
                else:
                    self._take(lines[place], segments)
                place += 1

    def _take_chunk(self, chunk: dict[str, Any], segments: list[Segment]) -> None:
        output: list[Segment] = []
        self._add_output(chunk, output)
        if output:
            self._last_output.add(output)
            segments += output
        if chunk.get("done") is True:
            self._is_complete = True
            self._counts = _counts(chunk)
        elif "_debug_info" in chunk:
            self._is_complete = True

    def _take_rest(self, rest: bytes, segments: list[Segment]) -> None:
        self._take(rest, segments)


class GenerateReader(_NdjsonReader):
    """``/api/generate``, streamed."""

    _add_output = staticmethod(_add_generated)
    _take_plain = staticmethod(_plain_generated)


class ChatReader(_NdjsonReader):
    """``/api/chat``, streamed."""

    _add_output = staticmethod(_add_message)
    _take_plain = staticmethod(_plain_messages)


def _read_generate(reply: dict[str, Any]) -> Ending:
    segments: list[Segment] = []
    _add_generated(reply, segments)
    return _whole(reply, segments)


def _read_chat(reply: dict[str, Any]) -> Ending:
    segments: list[Segment] = []
    _add_message(reply, segments)
    return _whole(reply, segments)


def _whole(reply: dict[str, Any], segments: list[Segment]) -> Ending:
    # A generation that is cut off answers 200 with ``done: false`` (wire contract 2.1); a prompt that was only rendered
    # (``_debug_render_only``) does too, and is all there is.
    is_complete = reply.get("done") is True or "_debug_info" in reply
    return Ending(is_complete=is_complete, counts=_counts(reply), segments=tuple(segments))


def _counts(chunk: dict[str, Any]) -> Counts:
    return Counts(
        prompt_tokens=count(chunk.get("prompt_eval_count")),
        completion_tokens=count(chunk.get("eval_count")),
        load_ms=milliseconds(chunk.get("load_duration")),
        prompt_ms=milliseconds(chunk.get("prompt_eval_duration")),
        generation_ms=milliseconds(chunk.get("eval_duration")),
        done_reason=reason(chunk.get("done_reason")),
    )


whole_generate = partial(WholeReader, _read_generate)
whole_chat = partial(WholeReader, _read_chat)
