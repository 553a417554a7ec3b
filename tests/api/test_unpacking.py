"""Bodies with a Content-Encoding: what is read, what is refused, and how much of it is ever made."""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
import zlib
from collections.abc import Callable

import pytest

from service.api.http.unpacking import Unpacking, coding_of, unpacked
from service.errors import BodyTooLargeError, InvalidRequestError, UnknownCodingError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b'{"prompt": "' + b"Why is the sky blue? " * 20_000 + b'"}'
NOISE = os.urandom(3_000_000)
MOST = 64 << 20


def raw_deflate(data: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(data) + packing.flush()


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd.compress),
}
each_packing = pytest.mark.parametrize("name", PACKED)


async def unpack(packed: bytes, coding: str, most: int = MOST) -> tuple[bytes, list[int]]:
    """What it unpacks to, and how large it was after each step."""
    sizes: list[int] = []
    return await unpacked(packed, coding, most, asyncio.Semaphore(1), sizes.append), sizes


@each_packing
@pytest.mark.parametrize("data", [b"", b"{}", TEXT, NOISE], ids=["empty", "small", "text", "noise"])
async def test_what_was_packed_comes_out(name: str, data: bytes) -> None:
    coding, pack = PACKED[name]
    assert (await unpack(pack(data), coding))[0] == data


@each_packing
async def test_it_comes_in_steps_and_no_step_is_large(name: str) -> None:
    coding, pack = PACKED[name]
    _, sizes = await unpack(pack(NOISE), coding)
    steps = [after - before for before, after in zip([0, *sizes], sizes, strict=False)]
    assert sum(steps) == len(NOISE)
    assert max(steps) <= 1 << 20


async def test_a_small_body_is_unpacked_in_place_and_a_small_one_that_bursts_is_not() -> None:
    assert (await unpack(gzip.compress(b"{}"), "gzip"))[1] == []
    assert len((await unpack(gzip.compress(b" " * 900_000), "gzip"))[1]) == 1


@pytest.mark.parametrize("name", ["gzip", "zstd"])
async def test_members_that_follow_each_other_are_one_body(name: str) -> None:
    coding, pack = PACKED[name]
    assert (await unpack(pack(TEXT) + pack(b"") + pack(NOISE), coding))[0] == TEXT + NOISE


async def test_a_frame_of_zstd_that_is_to_be_skipped_is_skipped() -> None:
    skipped = b"\x50\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"ignored"
    assert (await unpack(skipped + zstd.compress(TEXT) + skipped, "zstd"))[0] == TEXT


@pytest.mark.parametrize("name", ["gzip", "zstd"])
async def test_members_without_end_are_refused(name: str) -> None:
    coding, pack = PACKED[name]
    assert (await unpack(pack(b"x") * 1024, coding))[0] == b"x" * 1024
    with pytest.raises(InvalidRequestError, match="more than 1024 members"):
        await unpack(pack(b"") * 1025, coding)


@each_packing
async def test_what_is_broken_is_refused(name: str) -> None:
    coding, pack = PACKED[name]
    packed = pack(TEXT)
    for cut in (*range(1, 40), len(packed) // 2, len(packed) - 1):
        with pytest.raises(InvalidRequestError, match=f"Content-Encoding: {coding}; it ends too early"):
            await unpack(packed[:-cut], coding)
    for data in (packed + b"{}", b"{}" * 9, b"\xff" * 9):
        with pytest.raises(InvalidRequestError, match=f"Content-Encoding: {coding}"):
            await unpack(data, coding)


async def test_a_window_beyond_what_http_allows_is_refused() -> None:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 24, zstd.CompressionParameter.content_size_flag: 0}
    packing = zstd.ZstdCompressor(options=options)
    packed = packing.compress(TEXT) + packing.flush()
    with pytest.raises(InvalidRequestError, match="Content-Encoding: zstd"):
        await unpack(packed, "zstd")


@each_packing
async def test_no_more_is_made_than_may_be_taken(name: str) -> None:
    coding, pack = PACKED[name]
    burst = pack(b" " * (20 << 20))
    for most, made in ((MOST, 100 * len(burst)), (2000, 2000)):
        steps: list[int] = []
        with pytest.raises(BodyTooLargeError, match="100 times its size" if most == MOST else "more than 2000 bytes"):
            await unpacked(burst, coding, most, asyncio.Semaphore(1), steps.append)
        # What is beyond the bound is not told to who counts, as it is thrown away.
        assert max(steps, default=0) <= made + (1 << 20)
    assert (await unpack(pack(b" " * (1 << 20)), coding))[0] == b" " * (1 << 20)


async def test_what_bursts_is_refused_before_it_has_all_come_out() -> None:
    frame = zstd.compress(bytes(16 << 20))
    bomb = frame * ((1 << 20) // len(frame))
    steps: list[int] = []
    with pytest.raises(BodyTooLargeError):
        await unpacked(bomb, "zstd", 1 << 40, asyncio.Semaphore(1), steps.append)
    assert max(steps) < 10 << 20


async def test_who_counts_what_is_made_may_end_it() -> None:
    sizes: list[int] = []

    def grow(size: int) -> None:
        sizes.append(size)
        raise BodyTooLargeError("full")

    with pytest.raises(BodyTooLargeError, match="full"):
        await unpacked(gzip.compress(NOISE), "gzip", MOST, asyncio.Semaphore(1), grow)
    assert len(sizes) == 1


def test_a_step_reads_no_more_than_it_may_give() -> None:
    """Blocks that hold nothing: without this bound one step would read them all."""
    empty_block = b"\x00\x00\x00\xff\xff"
    unpacking = Unpacking(empty_block * 1_000_000, "deflate")
    for _ in range(4):
        assert unpacking.step(1 << 20) == b""
        assert not unpacking.is_done
    with pytest.raises(InvalidRequestError, match="ends too early"):
        unpacking.step(1 << 20)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        (" GZIP ", "gzip"),
        ("x-gzip", "gzip"),
        ("deflate", "deflate"),
        ("identity, zstd", "zstd"),
    ],
)
def test_a_coding_is_known_by_its_name(header: str, coding: str | None) -> None:
    assert coding_of(header) == coding


@pytest.mark.parametrize("header", ["br", "compress", "x-zstd", "gzip, gzip", "zstd,gzip", "gzip;q=1", "gzìp"])
def test_any_other_is_refused_and_told_what_is_taken(header: str) -> None:
    with pytest.raises(UnknownCodingError, match="what is, one at a time: gzip, deflate, zstd") as refused:
        coding_of(header)
    assert refused.value.taken == ("gzip", "deflate", "zstd")
