"""What every reader of replies has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from pydantic_core import from_json, to_json

from service.backend.protocols.lines import LineSplitter
from service.backend.protocols.repetition import LastOutput
from service.errors import InvalidRequestError
from service.job import TOOL_CALLS, Counts, Segment, joined
from service.json_bounds import UNSCANNED_BYTES, check_at_once

_DEEPEST = 4
"""An error that holds an error that holds …: Ollama nests twice (a runner's document as a string)."""


def text_of_error(error: object, depth: int = 0) -> str:
    """The message in an ``error`` value: text, an object with a message, or a runner's JSON document as text."""
    if depth < _DEEPEST:
        if isinstance(error, str) and error.startswith("{"):
            try:
                document = decoded(error.encode("utf-8", "replace"))
            except ValueError:
                return error
            return text_of_error(document, depth + 1) or error
        if isinstance(error, dict):
            for key in ("error", "message"):
                if error.get(key):
                    return text_of_error(error[key], depth + 1)
    return error if isinstance(error, str) else to_json(error).decode()


_LARGEST_COUNT = 2**53
_SHOWN_OF_GARBAGE = 80


class Ending(NamedTuple):
    """What a reply had said when its last byte had come."""

    is_complete: bool
    """The terminal marker of its protocol was seen, and no error. Anything else is truncated."""
    error: str | None = None
    """The text of an error that came under status 200, or what made the bytes unreadable."""
    counts: Counts = Counts()
    embeddings: int | None = None
    """How many vectors the reply held, None when it is not that kind of reply."""
    error_status: int | None = None
    """The status that the error would have had, where the reply names it."""
    is_refusal: bool = False
    """The error came in place of an answer: what has come is Ollama's refusal, and all of it."""
    is_too_large: bool = False
    """The error is that it holds more than is read: the same request would meet that again."""
    is_repeated: bool = False
    """It is not complete, since the model wrote the same token again and again and Ollama has ended it for that."""
    segments: tuple[Segment, ...] = ()
    """Output that could only be read at the end: all of a whole reply, or of a last line without a line end."""


class Reader(Protocol):
    """Reads one reply. Its bytes may be split anywhere."""

    @property
    def has_begun(self) -> bool:
        """Whether the bytes so far are an answer's: they may still be a refusal's where it is False."""

    @property
    def has_opening(self) -> bool:
        """Whether the bytes so far say something to a caller although they may still be a refusal's."""

    @property
    def numbers(self) -> int:
        """How many numbers of vectors have come; 0 where the reply is of another kind."""

    @property
    def gathered_bytes(self) -> int:
        """What it holds of the reply, beside output that it has given and the bytes that it was fed, as they are."""

    def feed(self, data: bytes) -> list[Segment]:
        """The output found in these bytes, which may be none; neighbouring text or thinking is joined."""

    def finish(self) -> Ending:
        """No more bytes will come: what the reply amounted to. To be called once."""


class ReplyError(ValueError):
    """The reply says that it failed; the text is its own, and ``status`` what it would have been told with."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TooLargeError(ReplyError):
    """The reply holds more than is read; the text says of what."""


class UnreadableError(ReplyError):
    """The bytes are not what the protocol says; the text shows how they begin."""

    def __init__(self, document: bytes) -> None:
        shown = document[:_SHOWN_OF_GARBAGE].decode(errors="replace")
        super().__init__(f"what should be a JSON object reads: {shown}")
        self.may_be_cut = document.lstrip()[:1] in (b"", b"{", b"[")
        """If these are the last bytes of a reply, more may have been on their way."""


def error_of_last(problem: ReplyError) -> str | None:
    """The error in the last bytes of a reply; None for a document that was cut, which is only not complete."""
    return None if isinstance(problem, UnreadableError) and problem.may_be_cut else str(problem)


def decoded(document: bytes) -> Any:
    """The JSON value in these bytes. Raises TooLargeError for one that is small to send and large to hold, ValueError
    for what is none.
    """
    if len(document) > UNSCANNED_BYTES:
        try:
            check_at_once(document)
        except InvalidRequestError as problem:
            raise too_large(problem) from None
    return from_json(document)


def too_large(problem: InvalidRequestError) -> TooLargeError:
    """What the scan of JSON has found, said of a reply."""
    return TooLargeError(str(problem).replace("the body", "the reply", 1))


class StreamReader(ABC):
    """A reader that looks at one line after the other. What follows an error is not looked at."""

    has_begun = True
    has_opening = False
    numbers = 0

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._error: str | None = None
        self._error_status: int | None = None
        self._is_too_large = False
        self._is_complete = False
        self._counts = Counts()
        self._last_output = LastOutput()
        """To be given the output of each event by itself."""

    @property
    def gathered_bytes(self) -> int:
        return self._lines.gathered_bytes

    def feed(self, data: bytes) -> list[Segment]:
        segments: list[Segment] = []
        if self._error is None:
            try:
                lines = self._lines.split(data)
                if len(lines) == 1:
                    self._take(lines[0], segments)
                elif lines:
                    self._take_all(lines, segments)
                if self._lines.is_too_long:
                    raise TooLargeError(f"a line of the reply is longer than {self._lines.limit_bytes} bytes")
            except ReplyError as problem:
                self._error = str(problem)
                self._error_status = problem.status
                self._is_too_large = isinstance(problem, TooLargeError)
        return joined(segments) if len(segments) > 1 else segments

    def finish(self) -> Ending:
        segments: list[Segment] = []
        rest = self._lines.rest()
        if self._error is None:
            try:
                self._take_rest(rest, segments)
            except ReplyError as problem:
                self._error = error_of_last(problem)
                self._error_status = problem.status
                self._is_too_large = isinstance(problem, TooLargeError)
        return Ending(
            is_complete=self._is_complete and self._error is None,
            error=self._error,
            counts=self._counts,
            error_status=self._error_status,
            is_too_large=self._is_too_large,
            # What has no line end was cut, and Ollama cuts nothing when it ends a stream on purpose.
            is_repeated=not (self._is_complete or self._error or rest) and self._last_output.is_repeated,
            segments=tuple(joined(segments)),
        )

    def _take_all(self, lines: list[bytes], segments: list[Segment]) -> None:
        """Look at lines that came together. May raise ReplyError."""
        for line in lines:
            self._take(line, segments)

    @abstractmethod
    def _take(self, line: bytes, segments: list[Segment]) -> None:
        """Look at a line, without its line end. May raise ReplyError."""

    @abstractmethod
    def _take_rest(self, rest: bytes, segments: list[Segment]) -> None:
        """Look at what came after the last line end. May raise ReplyError."""


def add(segments: list[Segment], kind: str, data: object) -> None:
    """Add a piece of output, if it is one."""
    if data and isinstance(data, str):
        segments.append(Segment(kind, data))


def add_tool_calls(segments: list[Segment], calls: object) -> None:
    """Add a list of tool calls, if it is one."""
    if calls and isinstance(calls, list):
        segments.append(Segment(TOOL_CALLS, to_json(calls).decode()))


def count(value: object) -> int | None:
    """A number of tokens, None when it is not one (or beyond what a database holds)."""
    return value if type(value) is int and 0 <= value < _LARGEST_COUNT else None


def counts_in(reply: dict[str, Any], done_reason: str | None = None) -> Counts:
    """The counts of a reply, or of an event, whose ``usage`` has ``input_tokens`` and ``output_tokens``."""
    usage = mapping(reply.get("usage"))
    return Counts(
        prompt_tokens=count(usage.get("input_tokens")),
        completion_tokens=count(usage.get("output_tokens")),
        done_reason=done_reason,
    )


def milliseconds(nanoseconds: object) -> int | None:
    """A duration as Ollama gives it, in the unit that is kept."""
    value = count(nanoseconds)
    return None if value is None else (value + 500_000) // 1_000_000


def reason(value: object) -> str | None:
    """Why a reply ended, None when nothing was said."""
    return value if value and isinstance(value, str) else None


def mapping(value: object) -> dict[str, Any]:
    """The object itself, an empty one for anything else: what should be an object may be null."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[dict[str, Any]]:
    """The objects of a list, none for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def parsed(document: bytes, decode: Callable[[bytes], Any] = decoded) -> dict[str, Any]:
    """The JSON object in these bytes. Raises UnreadableError for anything else, ReplyError for one with an error, and
    what ``decode`` raises.
    """
    try:
        value = decode(document)
    except ReplyError:
        raise
    except ValueError:
        raise UnreadableError(document) from None
    if not isinstance(value, dict):
        raise UnreadableError(document)
    if "error" in value and (error := value["error"]):
        raise ReplyError(text_of_error(error))
    return value
