"""Texts of any length, read in pieces: none is ever whole in memory because somebody asked for it.

A text that is read so never changes once it is there. It may be deleted meanwhile, and then breaks off.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import NamedTuple

from service.errors import StoreError
from service.job import TOOL_CALLS, Result, Segment
from service.store.database import Database, LongText, TextPiece

SHORT_BYTES = 256 * 1024
"""A text up to this size is short: it comes with the first look at it."""
PIECE_BYTES = 128 * 1024
"""Of a long one: on its way out there are several copies of a piece."""

_IN_STRING = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_HIGH_SURROGATE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}")
_LONGEST_ESCAPE = 12
"""Two halves of a character, each as ``\\uXXXX``."""


class StoredText:
    """One text. ``turns`` bounds how many pieces of long ones are read at a time."""

    def __init__(self, database: Database, turns: asyncio.Semaphore, text: LongText, first: TextPiece) -> None:
        self._database = database
        self._turns = turns
        self._text = text
        self.size = first.total
        """Of the whole, in bytes."""
        self.is_short = len(first.data) == first.total
        self._all = first.data if self.is_short else b""

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """All of it, in UTF-8, cut anywhere. Raises StoreError where it is deleted meanwhile."""
        if self.is_short:
            yield self._all
            return
        place = 0
        while place < self.size:
            async with self._turns:
                piece = await self._database.piece(self._text, place, PIECE_BYTES)
            if piece is None or not piece.data:
                raise StoreError("it is kept no longer")
            place += len(piece.data)
            yield piece.data

    async def texts(self) -> AsyncIterator[str]:
        """The same as characters."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        async for piece in self.pieces():
            if text := decoder.decode(piece):
                yield text

    async def first_line(self) -> str:
        """What stands before its first line end. Raises StoreError where it is deleted meanwhile."""
        line = b""
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                begin, end, _ = piece.partition(b"\n")
                line += begin
                if end:
                    break
        return line.decode(errors="replace")

    async def whole(self) -> str:
        """All of it at once; for one that is short."""
        return "".join([text async for text in self.texts()])


class RawPiece(NamedTuple):
    """A stretch of one segment, as it is written in JSON. No escape, and no character, is cut."""

    kind: str
    raw: str
    is_last: bool
    """It is the last of its segment."""

    @property
    def data(self) -> str:
        """The same as it is."""
        return str(json.loads(f'"{self.raw}"', strict=False))


class StoredResult:
    """The output of a finished job's last attempt."""

    def __init__(self, attempt: int, text: StoredText) -> None:
        self.attempt = attempt
        self._text = text

    @property
    def is_short(self) -> bool:
        return self._text.is_short

    @property
    def size(self) -> int:
        """In bytes, as it is stored."""
        return self._text.size

    async def whole(self) -> Result:
        """All of it at once; for one that is short."""
        return Result(self.attempt, tuple(Segment(*pair) for pair in json.loads(await self._text.whole())))

    async def pieces(self) -> AsyncIterator[RawPiece]:
        """Its segments one after the other, each in pieces of a bounded size; one of tool calls, which is an array,
        comes as it is. Raises StoreError where it is deleted meanwhile.
        """
        scan, begun = SegmentsScan(), ""
        async for text in self._text.texts():
            for piece in scan.read(text):
                if piece.kind != TOOL_CALLS:
                    yield piece
                    continue
                begun += piece.raw
                if piece.is_last:
                    yield RawPiece(TOOL_CALLS, begun, is_last=True)
                    begun = ""


class SegmentsScan:
    """Reads what :func:`service.store.texts.segments_text` has written, cut anywhere, without making values of it."""

    def __init__(self) -> None:
        self._left = ""
        self._kind: str | None = None
        self._is_in_data = False

    def read(self, text: str) -> list[RawPiece]:
        """The stretches of segments that have come with these characters."""
        text = self._left + text
        place = 0
        found: list[RawPiece] = []
        while True:
            if self._is_in_data and self._kind is not None:
                end = _end_of_string(text, place)
                is_last = end < len(text) and text[end] == '"'
                if not is_last:
                    end = _end_of_escapes(text, place, end)
                if is_last or end > place:
                    found.append(RawPiece(self._kind, text[place:end], is_last))
                place = end
                if not is_last:
                    break
                place += 1
                self._is_in_data, self._kind = False, None
                continue
            quote = text.find('"', place)
            if quote < 0:
                break
            if self._kind is not None:
                self._is_in_data, place = True, quote + 1
                continue
            end = text.find('"', quote + 1)
            if end < 0:
                place = quote
                break
            self._kind, place = text[quote + 1 : end], end + 1
        self._left = text[place:]
        return found


def _end_of_string(text: str, start: int) -> int:
    found = _IN_STRING.match(text, start)
    assert found is not None
    return found.end()


def _end_of_escapes(text: str, start: int, end: int) -> int:
    """Where the text may be cut between ``start`` and ``end``, so that what is before the cut can be read by itself."""
    last = text.rfind("\\", max(start, end - _LONGEST_ESCAPE // 2), end)
    if last < 0 or not _begins_escape(text, start, last):
        return end
    is_whole = last + 6 <= end if text[last + 1 : last + 2] == "u" else last + 2 <= end
    if is_whole and not _HIGH_SURROGATE.fullmatch(text, last, end):
        return end
    before = last - 6
    is_pair = before >= start and _HIGH_SURROGATE.fullmatch(text, before, last) and _begins_escape(text, start, before)
    return before if is_pair and not is_whole else last


def _begins_escape(text: str, start: int, place: int) -> bool:
    """Whether the backslash at this place begins an escape, and is not escaped itself."""
    first = place
    while first > start and text[first - 1] == "\\":
        first -= 1
    return (place - first) % 2 == 0
