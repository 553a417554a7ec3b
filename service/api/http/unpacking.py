"""Bodies with a Content-Encoding, unpacked in steps that bound what comes out.

Of several gzip members, or zstd frames, all are read, as Go's readers and aiohttp do. What comes out is bounded by what
went in so far, too: JSON and base64 pack to no less than a twentieth, and what is made to burst to a thousandth.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Callable
from typing import Protocol

from service.errors import BodyTooLargeError, InvalidRequestError, UnknownCodingError

if sys.version_info >= (3, 14):
    from compression.zstd import DecompressionParameter, ZstdDecompressor, ZstdError
else:
    from backports.zstd import DecompressionParameter, ZstdDecompressor, ZstdError

GZIP, DEFLATE, ZSTD = "gzip", "deflate", "zstd"
CODINGS = (GZIP, DEFLATE, ZSTD)

_ALWAYS_TAKEN = 1024 * 1024
"""A body may unpack to so much, whatever its own size is."""
_MOST_RATIO = 100
_STEP_BYTES = 1024 * 1024
_INPUT_BYTES = 64 * 1024
_SMALL_BYTES = 4 * 1024
"""A packed body up to this size is unpacked in place, if not much comes out: a thread's turn takes longer."""
_IN_PLACE_BYTES = 64 * 1024
_MOST_MEMBERS = 1024
"""Of one body. Nobody sends more, and each takes a little time in which Python's lock is held."""
_LARGEST_WINDOW = 23
"""Of zstd, as a power of two: RFC 9659 allows HTTP 8 MiB, and a window is memory."""


def coding_of(header: str) -> str | None:
    """The coding that a header Content-Encoding names; None for a body as it is.

    Raises UnknownCodingError for one that is not known here, and for several: nobody packs twice but to hide the size.
    """
    named = [name for one in header.split(",") if (name := one.strip().lower()) not in ("", "identity")]
    if not named:
        return None
    # RFC 9110, 8.4.1.3: it is the same.
    coding = named[0].removeprefix("x-") if named[0] == "x-gzip" else named[0]
    if len(named) > 1 or coding not in CODINGS:
        raise UnknownCodingError(
            f"Content-Encoding: {header!r} is not taken here; what is, one at a time: {', '.join(CODINGS)}", CODINGS
        )
    return coding


async def unpacked(
    packed: bytes, coding: str, most: int, turn: asyncio.Semaphore, grow: Callable[[int], None]
) -> bytes:
    """What was packed. The work is done in a thread, step by step, each in its ``turn``; ``grow`` is told after each
    how large it has become, and may raise.

    Raises BodyTooLargeError beyond ``most`` bytes, and beyond 1 MiB where that is a hundred times what was packed;
    InvalidRequestError for what is no such coding.
    """
    unpacking = Unpacking(packed, coding)
    body = bytearray()
    try:
        if len(packed) <= _SMALL_BYTES:
            body += unpacking.step(_IN_PLACE_BYTES)
            _check_size(len(body), unpacking.position, most)
        while not unpacking.is_done:
            async with turn:
                body += await asyncio.to_thread(unpacking.step, _STEP_BYTES)
            _check_size(len(body), unpacking.position, most)
            grow(len(body))
        return bytes(body)
    finally:
        body.clear()


def _check_size(size: int, packed_size: int, most: int) -> None:
    if size > most:
        raise BodyTooLargeError(f"the body unpacks to more than {most} bytes, which is the most that is taken")
    if size > max(_ALWAYS_TAKEN, _MOST_RATIO * packed_size):
        raise BodyTooLargeError(
            f"the body unpacks to more than {_MOST_RATIO} times its size; what is larger than {_ALWAYS_TAKEN} bytes "
            "must not"
        )


class _Member(Protocol):
    """The reader of one gzip member, one zlib stream or one zstd frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Unpacking:
    """A packed body, unpacked piece by piece."""

    def __init__(self, packed: bytes, coding: str) -> None:
        self._packed = packed
        self._coding = coding
        self.position = 0
        """How much of it was taken so far."""
        self._members = 0
        self._member: _Member | None = None
        self._is_starved = True
        """Whether the member has given all that it can of what it was fed."""
        self.is_done = not packed

    def step(self, most: int) -> bytes:
        """The next piece, of at most so many bytes, from at most as many. Raises InvalidRequestError for what is no
        such coding, or ends too early.
        """
        pieces, size, begun = [], 0, self.position
        while not self.is_done and size < most and self.position - begun < most:
            try:
                piece = self._some(most - size)
            except (zlib.error, ZstdError):
                raise self._broken("it is not that") from None
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def _some(self, most: int) -> bytes:
        member = self._member
        if member is None:
            member = self._next_member()
        fed = b""
        if self._is_starved:
            fed = self._packed[self.position : self.position + _INPUT_BYTES]
            self.position += len(fed)
        left = getattr(member, "unconsumed_tail", b"")
        piece = member.decompress(left + fed if left else fed, most)
        if member.eof:
            self._end_of_member(member)
        elif not piece and not fed and self.position == len(self._packed):
            raise self._broken("it ends too early")
        else:
            # Where less came than was asked for, the member has nothing left to give.
            self._is_starved = len(piece) < most
        return piece

    def _next_member(self) -> _Member:
        self._members += 1
        if self._members > _MOST_MEMBERS:
            raise self._broken(f"it has more than {_MOST_MEMBERS} members")
        self._is_starved = True
        member: _Member
        if self._coding == ZSTD:
            member = ZstdDecompressor(options={DecompressionParameter.window_log_max: _LARGEST_WINDOW})
        elif self._coding == GZIP:
            member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        else:
            member = zlib.decompressobj(zlib.MAX_WBITS if _has_zlib_head(self._packed) else -zlib.MAX_WBITS)
        self._member = member
        return member

    def _end_of_member(self, member: _Member) -> None:
        self._member = None
        self.position -= len(member.unused_data)
        self.is_done = self.position == len(self._packed)
        if not self.is_done and self._coding == DEFLATE:
            raise self._broken("bytes follow after its end")

    def _broken(self, why: str) -> InvalidRequestError:
        return InvalidRequestError(f"the body could not be read as Content-Encoding: {self._coding}; {why}")


def _has_zlib_head(packed: bytes) -> bool:
    """Whether deflate came as RFC 9110 has it, in zlib's frame (RFC 1950, 2.2). Some send it without."""
    return packed[0] & 0x0F == 8 and (len(packed) < 2 or (packed[0] << 8 | packed[1]) % 31 == 0)
