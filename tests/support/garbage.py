"""What nobody should send: thirty kinds of garbage for any route, and how a refusal of it must look."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from service.api import anthropic, ollama, openai
from service.api.http.failures import ErrorShape, problem
from tests.support.access import Route
from tests.support.raw_client import Answer, request_head

_OBJECT = b'{"model": "llama3.2", "prompt": "x", "messages": [{"role": "user", "content": "x"}], "input": "x"'


class Garbage(NamedTuple):
    """One kind: a request that is wrong in one way, whatever its route."""

    name: str
    lines: tuple[bytes, ...] = ()
    """Further lines of the head."""
    body: bytes | None = None
    suffix: str = ""
    """What follows the path."""
    version: bytes = b"HTTP/1.1"
    has_length: bool = True
    """Whether the body's length is told as it is; the kind says something else otherwise."""
    is_cut: bool = False
    """More is announced than comes. It may stay without an answer."""

    def path_of(self, route: Route) -> str:
        """The path that is asked for at a route."""
        return (route.path + self.suffix).partition("?")[0]

    def request(self, route: Route, *shown: bytes) -> bytes:
        """Its bytes at a route, for a caller who shows these lines."""
        lines = [*shown, *self.lines]
        if self.body is not None and self.has_length:
            lines.append(b"Content-Length: %d" % len(self.body))
        head = request_head(route.method, route.path + self.suffix, *lines, version=self.version)
        return head + b"\r\n\r\n" + (self.body or b"")


def _kinds(make: Callable[[Any], Garbage], **given: Any) -> tuple[Garbage, ...]:
    return tuple(make((name.replace("_", " "), value)) for name, value in given.items())


QUERIES = _kinds(
    lambda kind: Garbage(kind[0], suffix=kind[1]),
    numbers_out_of_range="?page=-1&per_page=99999999999999999999&page_size=0&wait=nan&from=x&last_event_id=-",
    escapes_that_are_none="?%zz=%ff&page=%00&q=%00&status[]=%ed%a0%80&token=..&token=a.b.c",
    a_long_query="?" + "a=" + "x" * 6_000,
    a_path_with_NUL="%00",
    a_path_that_goes_up="/%2e%2e/..%2f%5c..",
    a_path_that_is_no_UTF_8="%ff%fe",
)
HEADS = (
    Garbage("HTTP/1.0", version=b"HTTP/1.0"),
    *_kinds(
        lambda kind: Garbage(kind[0], lines=kind[1]),
        a_large_header=(b"X-Large: " + b"x" * 7_000,),
        many_headers=tuple(b"X-%d: y" % number for number in range(100)),
        headers_that_are_no_UTF_8=(
            b"X-Priority: \xff\xfe",
            b"Idempotency-Key: \xff",
            b"Cookie: \xff=\xfe",
            b"Accept: \xff",
        ),
        values_that_cannot_be=(
            b"X-Priority: urgent",
            b"X-Job-Deadline-Seconds: nan",
            b"Idempotency-Key: " + b"k" * 300,
            b"X-On-Disconnect: explode",
            b"Last-Event-ID: -1.x",
            b"Origin: null, null",
        ),
        ranges=(b"Range: bytes=9-1,-0,x", b"If-Range: x", b"If-Modified-Since: never", b"If-None-Match: x,,"),
        an_upgrade_that_is_none=(b"Upgrade: h2c, websocket", b"Sec-WebSocket-Version: 99", b"Sec-WebSocket-Key: x"),
        addresses_that_are_none=(b"X-Forwarded-For: ,[::,\xff", b"Forwarded: for=", b"X-Forwarded-Proto: gopher"),
    ),
)
BODIES = (
    *_kinds(
        lambda kind: Garbage(kind[0], (b"Content-Type: application/json",), kind[1]),
        no_body=b"",
        null=b"null",
        an_array=b"[]",
        a_string=b'"text"',
        an_empty_object=b"{}",
        deep_nesting=b"[" * 5_000 + b"]" * 5_000,
        deep_nesting_in_an_object=_OBJECT + b', "options": ' + b'{"a":' * 3_000 + b"1" + b"}" * 3_001,
        no_number=_OBJECT + b', "options": {"seed": NaN}}',
        half_of_a_character=_OBJECT.replace(b"x", b"\\ud800") + b"}",
        the_character_NUL=_OBJECT.replace(b"x", b"\\u0000") + b"}",
        bytes_that_are_no_UTF_8=_OBJECT.replace(b"x", b"\xff\xfe") + b"}",
        integers_without_end=_OBJECT + b', "options": {"seed": %s}}' % (b"9" * 5_000),
        names_that_occur_twice=_OBJECT + b', "Model": null, "model": 5, "MODEL": []}',
        an_object_that_breaks_off=_OBJECT,
        something_after_the_object=_OBJECT + b"} x",
        another_alphabet=json.dumps({"model": "llama3.2"}).encode("utf-16"),
        wrong_types=b'{"model": [], "prompt": {}, "messages": 5, "input": null, "stream": "yes", "options": []}',
    ),
    Garbage("a form without an end", (b"Content-Type: multipart/form-data; boundary=x",), b"--x\r\nContent-Dis"),
    Garbage("a form without a boundary", (b"Content-Type: multipart/form-data",), b"--\r\n\r\n--"),
    Garbage("less than was announced", (b"Content-Length: 100",), b"{}", has_length=False, is_cut=True),
)

GARBAGE = QUERIES + HEADS + BODIES
"""What is HTTP all the same: a caller without a key learns no more from it than that."""

PACKED = (
    Garbage("what was never packed", (b"Content-Encoding: gzip",), _OBJECT + b"}"),
    Garbage("a packed body that breaks off", (b"Content-Encoding: gzip",), gzip.compress(_OBJECT + b"}")[:-9]),
    Garbage("zstd that is none", (b"Content-Encoding: zstd",), b"\x28\xb5\x2f\xfd\xff\xff\xff\xff"),
    Garbage("a packing that nobody knows", (b"Content-Encoding: x-rot13",), _OBJECT + b"}"),
)
"""What cannot be unpacked."""

NO_HTTP = (
    *_kinds(
        lambda kind: Garbage(kind[0], kind[1], b"{}", has_length=False),
        two_lengths=(b"Content-Length: 2", b"Content-Length: 3"),
        a_length_that_is_none=(b"Content-Length: -2",),
        two_hosts=(b"Host: elsewhere",),
        a_length_and_chunks=(b"Content-Length: 2", b"Transfer-Encoding: chunked"),
        chunks_within_gzip=(b"Transfer-Encoding: gzip, chunked",),
        an_expectation_that_nobody_meets=(b"Expect: 200-maybe",),
        more_headers_than_anybody_has=tuple(b"X-%d: y" % number for number in range(300)),
        a_header_without_a_colon=(b"Nonsense",),
        a_header_with_NUL=(b"X-Odd: \0",),
        two_types=(b"Content-Type: text/plain", b"Content-Type: application/json"),
    ),
    Garbage("a bad chunk", (b"Transfer-Encoding: chunked",), b"zz\r\n{}\r\n0\r\n\r\n", has_length=False),
    Garbage("a path of bytes", suffix="\xff"),
    Garbage("another HTTP", version=b"HTTP/9.7"),
    Garbage("heads without end", tuple(b"X-%d: %s" % (number, b"x" * 8_000) for number in range(40))),
    Garbage("a name without end", (b"X" * 300_000 + b": y",)),
)
"""What aiohttp's parser refuses, mostly before anybody asks who sent it."""

WRONG: tuple[Any, ...] = (5, "", "\0", "\ud800", [], {}, None, True, [[]], {"a": {}}, -1, 1e300, 2**70, [None])
"""Values of which most are wrong for any field."""

_OLLAMAS: tuple[str, ...] = ('{"error":"option ',)
_NOT_NOW: tuple[str, ...] = ("no backend", "the queue", "queue is full", "gave no answer", "stopping")


def is_fault_of_ours(answer: Answer) -> bool:
    """Whether a reply says that the service itself has failed.

    A 5xx of Ollama's is none: a job was made (X-Job-Id), and that is its reply, or the words are Ollama's, where it was
    relayed. Nor is a 503 that says that the queue is full or that no backend is there, or a 501 for a coding that
    nobody has, or a 505 for a version of HTTP. An internal error always is one.
    """
    if answer.status < 500 or answer.status in (501, 505):
        return False
    text = answer.body.decode("utf-8", "replace")
    if "internal error" in text:
        return True
    if "x-job-id" in answer.headers:
        return False
    return not any(words in text for words in (_NOT_NOW if answer.status in (503, 504) else _OLLAMAS))


def shape_problem(answer: Answer, shape: ErrorShape) -> str | None:
    """What is wrong with how a refusal looks on a path whose errors have this shape; None when nothing is."""
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    text = answer.body.decode("utf-8", "replace")
    if answer.status == 416 and not text:
        # So it is with files, of which there is no such range.
        return None
    if shape is not problem and (media_type, text) in (
        ("text/plain", "404 page not found"),
        ("text/plain", "405 method not allowed"),
    ):
        return None
    wanted = "application/problem+json" if shape is problem else "application/json"
    try:
        value = json.loads(answer.body)
        if media_type != wanted:
            raise TypeError(f"{media_type} in place of {wanted}")
        if not isinstance(_SHAPES[shape](value), str):
            raise TypeError("its message is no text")
    except (ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__} {error}: {text[:200]!r}"
    return None


_SHAPES: dict[ErrorShape, Callable[[Any], Any]] = {
    problem: lambda value: value["error"] if value["error"] == value["detail"] else None,
    ollama.shape: lambda value: value["error"],
    openai.shape: lambda value: value["error"]["message"],
    anthropic.shape: lambda value: value["error"]["message"] if value["type"] == "error" else None,
}
"""Where each shape has its message."""
