"""Strategies for requests that no client would send: heads, chunks and frames as raw bytes."""

from __future__ import annotations

import json
import zlib
from typing import NamedTuple

from hypothesis import strategies as st

_METHODS = [b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"DELETE", b"get", b"PRI", b"X" * 30, b"", b"G\xffT"]
_TARGETS = b"/ * /api/generate /api/v1/prompt /api/v1/prompts?page=2 /api/v1/ws /static/x /v1/models".split()
_ODD_TARGETS = [*b"// /% /%00 /api/../health http://x/health http://[ \xff".split(), b"/a b", b"/?" + b"q" * 9000, b""]
_VERSIONS = [b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.", b"HTTP/11", b"", b"http/1.1"]
_NAMES = (
    b"Host Content-Length Transfer-Encoding Connection Expect Upgrade Range Origin TE Trailer Authorization X-Api-Key "
    b"Content-Type Accept Cookie Idempotency-Key X-Priority X-Job-Deadline-Seconds X-On-Disconnect Last-Event-ID "
    b"Sec-WebSocket-Key Sec-WebSocket-Version X-Forwarded-For Access-Control-Request-Method If-None-Match \xff"
).split()
_NAMES += [b"", b"A b", b"x" * 5000]
_TEXTS = (
    b"0 2 -1 +2 2,2 0x2 chunked identity close keep-alive Upgrade websocket 100-continue bytes=0- nan finish localhost "
    b"*/* null \xff\xfe ::1 text/event-stream high"
).split()
_TEXTS += [b"gzip, chunked", b"Bearer x", b"Bearer a.b.c", b"", b" ", b"\t", b"a\0b", b"a=b; c", b"9" * 30, b"x" * 9000]
_ENDS = [b"\r\n"] * 8 + [b"\n", b"\r", b"\r\n ", b"\0\r\n"]


@st.composite
def heads(draw: st.DrawFn) -> list[bytes]:
    """The bytes of a head, in one or two packets, with or without something behind it."""
    pick = draw(st.sampled_from((0, 0, 0, 1)))
    first = b"%s %s %s" % (
        draw(st.sampled_from(_METHODS if pick else _METHODS[:6])),
        draw(st.sampled_from(_TARGETS + _ODD_TARGETS if pick else _TARGETS)),
        draw(st.sampled_from(_VERSIONS)),
    )
    lines = draw(st.lists(st.tuples(st.sampled_from(_NAMES), st.sampled_from(_TEXTS)).map(b": ".join), max_size=6))
    if draw(st.integers(0, 5)):
        lines.insert(0, b"Host: localhost")
    text = b"".join(line + draw(st.sampled_from(_ENDS)) for line in (first, *lines))
    text += draw(st.sampled_from([b"\r\n"] * 4 + [b"", b"\n"])) + draw(
        st.sampled_from([b"", b"{}", b"2\r\n{}\r\n0\r\n\r\n"])
    )
    return _in_packets(draw, _with_noise(draw, text))


class Chunked(NamedTuple):
    """A request in chunks, and whether they are right to the end."""

    packets: list[bytes]
    is_right: bool


_SIZES = ["%x", "%X", "000%x", "%x;a=b", '%x;a="b\\"c"']
_WRONG_SIZES = [
    "%x ; a",
    "-%x",
    "0x%x",
    "%xg",
    "",
    " ",
    "%x0000000000000000000",
    "%x;" + "a" * 20_000,
    "\xff%x",
    "%x,%x",
]
_LASTS = [b"0\r\n\r\n", b"000\r\n\r\n", b"0;a=b\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n"]
_WRONG_LASTS = [b"", b"0\r\n", b"0\r\n" + b"X: y\r\n" * 3_000 + b"\r\n", b"0\r\nA b\r\n\r\n", b"-0\r\n\r\n", b"0\n\n"]


@st.composite
def chunks(draw: st.DrawFn) -> Chunked:
    """A small prompt in chunks of chance sizes, of which some are told wrongly."""
    body = json.dumps({"model": "m", "prompt": "x" * draw(st.sampled_from((1, 40, 3_000)))}).encode()
    path = draw(st.sampled_from([b"/api/v1/prompt", b"/generate", b"/api/generate"]))
    parts, is_right = [], True
    while body:
        length = draw(st.integers(1, len(body)))
        part, body = body[:length], body[length:]
        wrong = draw(st.integers(0, 19))
        form = draw(st.sampled_from(_SIZES if wrong else _WRONG_SIZES))
        end = b"\n" if wrong == 1 else b"\r\n"
        is_right &= wrong > 1
        size = form.replace("%X", f"{length:X}").replace("%x", f"{length:x}").encode("latin-1")
        parts.append(size + end + part + (b"" if wrong == 2 else b"\r\n"))
        is_right &= wrong != 2
    is_right &= (ends_well := draw(st.integers(0, 4)) > 0)
    last = draw(st.sampled_from(_LASTS if ends_well else _WRONG_LASTS))
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % path
    return Chunked(_in_packets(draw, b"".join((head, *parts, last))), is_right)


_SUBSCRIBE = '{"type":"subscribe","channel":"%s"}'
_MESSAGES = [_SUBSCRIBE % "jobs", _SUBSCRIBE % "stats", _SUBSCRIBE.replace("sub", "unsub") % "jobs"]
_MESSAGES += [_SUBSCRIBE % f'job","id":"{one}' for one in ("x", "\\u0000", "\\ud800", "x" * 5_000, 'x","from":"9.9')]
_MESSAGES += [
    '{"type":"auth"}',
    '{"type":"auth","token":"a.b.c"}',
    '{"type":"auth","token":5}',
    '{"type":[]}',
    "{}",
    "",
]
_MESSAGES += [
    "null",
    "[]",
    "5",
    '"x"',
    "{",
    '{"type":NaN}',
    "[" * 5_000,
    "1" * 5_000,
    '{"type":"' + "x" * 70_000 + '"}',
]


_CLOSINGS = [b"", b"\x03", b"\x03\xe8bye", b"\x03\xee", b"\x03\xe8\xff", b"\xff" * 125]
_NOISE = [b"\0", b"\xff", b"\r", b"\n", b":", b" ", b"\x16\x03"]


@st.composite
def frames(draw: st.DrawFn) -> list[bytes]:
    """Frames of a websocket: right ones, and such as are wrong in their first bytes, their length or what they hold."""
    return [draw(_frame()) for _ in range(draw(st.integers(1, 5)))]


@st.composite
def _frame(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from(_MESSAGES)).encode("utf-8", "surrogatepass")
    opcode, reserved, is_final, is_masked = 1, 0, True, True
    match draw(st.integers(0, 9)):
        case 0:
            opcode = draw(st.integers(0, 15))
        case 1:
            reserved = draw(st.integers(1, 7))
        case 2:
            is_final = False
        case 3:
            is_masked = False
        case 4:
            opcode, data = (
                8,
                draw(st.sampled_from([b"", b"\x03", b"\x03\xe8bye", b"\x03\xee", b"\x03\xe8\xff", b"\xff" * 125])),
            )
        case 5:
            opcode, data = 9, draw(st.sampled_from([b"", b"ping", b"x" * 125, b"x" * 126]))
        case 6:
            # Deflated as the extension has it: without its last four bytes; also what only says so.
            packer = zlib.compressobj(wbits=-15)
            packed = packer.compress(data * draw(st.sampled_from((1, 100)))) + packer.flush(zlib.Z_SYNC_FLUSH)
            reserved, data = 4, draw(st.sampled_from([packed[:-4], packed, b"\xff\xff\xff", b""]))
        case 7:
            data = draw(st.binary(max_size=200))
        case _:
            pass
    told = draw(st.sampled_from([len(data)] * 9 + [0, len(data) + 1, 1 << 40, (1 << 63) + 1]))
    first = bytes([is_final << 7 | reserved << 4 | opcode])
    mask = draw(st.sampled_from((b"\0\0\0\0", b"\x01\x02\x03\xff"))) if is_masked else b""
    body = bytes(one ^ mask[index % 4] for index, one in enumerate(data)) if is_masked else data
    return first + _length(told, is_masked << 7) + mask + body


def _length(told: int, masked: int) -> bytes:
    if told < 126:
        return bytes([masked | told])
    return bytes([masked | 126]) + told.to_bytes(2) if told < 1 << 16 else bytes([masked | 127]) + told.to_bytes(8)


def _with_noise(draw: st.DrawFn, text: bytes) -> bytes:
    """Sometimes with a few bytes that belong elsewhere."""
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 3)))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(_NOISE)) + text[place:]
    return text


def _in_packets(draw: st.DrawFn, text: bytes) -> list[bytes]:
    place = draw(st.sampled_from((0, 0, 0, 1))) and draw(st.integers(1, max(1, len(text) - 1)))
    return [text[:place], text[place:]] if place else [text]
