"""The attacks, as data: what each of their connections sends, and what may be said to it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from tests.support.abuse import ADMIN, MEBIBYTE, MODEL, Attacked, Blow
from tests.support.raw_client import request_head

PAGE = 10**9
_ADMIN = f"Authorization: Bearer {ADMIN}".encode()


class Attack(NamedTuple):
    """What comes at once, and the statuses that are right for it."""

    name: str
    blows: Callable[[Attacked], list[Blow]]
    statuses: frozenset[int]
    rows: int = 0
    """How many finished jobs it needs."""


def _post(path: str, body: bytes, *lines: bytes, kept_back: int = 1, announced: int | None = None) -> Blow:
    """A POST, of whose body a part is kept back."""
    length = b"Content-Length: %d" % (len(body) if announced is None else announced)
    whole = request_head("POST", path, length, *lines) + b"\r\n\r\n" + body
    place = len(whole) - kept_back
    return Blow(whole[:place], whole[place:], is_answered=announced is None)


def _key(attacked: Attacked) -> bytes:
    return f"Authorization: Bearer {attacked.key}".encode()


_BLOCK = 128 * 1024


@cache
def _zstd_bomb() -> bytes:
    """1 MiB that unpacks to 32 GiB: a frame (RFC 8878) of blocks that each say one byte and how often it comes."""
    head = b"\x28\xb5\x2f\xfd" + bytes([0, 7 << 3])
    again, last = ((_BLOCK << 3 | 1 << 1 | is_last).to_bytes(3, "little") + b"[" for is_last in (0, 1))
    return head + again * (MEBIBYTE // 4 - 3) + last


@cache
def _packed_arrays() -> bytes:
    """64 KiB of gzip with 22 million empty arrays."""
    return gzip.compress(b'{"model":"m","prompt":[' + b"[]," * 22_000_000 + b"[]]}", 9)


def _bombs_without_a_key(_attacked: Attacked) -> list[Blow]:
    packed = (b"Content-Encoding: zstd", b"Content-Type: application/json")
    paths = ("/api/generate", "/nothing/here", "/api/v1/prompt", "/v1/responses", "/health", "/api/keys")
    return [_post(path, _zstd_bomb(), *packed) for path in paths]


def _bombs(attacked: Attacked) -> list[Blow]:
    packed = (b"Content-Encoding: zstd", _key(attacked))
    return [_post(path, _zstd_bomb(), *packed) for path in ("/api/generate", "/api/v1/prompt", "/v1/responses")]


def _arrays_in_gzip(attacked: Attacked) -> list[Blow]:
    packed = (b"Content-Encoding: gzip", _key(attacked))
    return [_post(path, _packed_arrays(), *packed) for path in ("/api/chat", "/api/v1/prompt", "/v1/messages")]


def _plain_arrays(attacked: Attacked) -> list[Blow]:
    ones = b'{"model":"llama3.2","prompt":"x","context":[' + b"1," * (8 * MEBIBYTE) + b"1]}"
    empty = b'{"model":"llama3.2","prompt":"x","options":{"stop":[' + b"[]," * (5 * MEBIBYTE) + b"[]]}}"
    deep = b'{"model":"llama3.2","prompt":' + b"[" * MEBIBYTE + b"]" * MEBIBYTE + b"}"
    bodies = (ones, empty, deep)
    return [_post(path, body, _key(attacked)) for body in bodies for path in ("/api/generate", "/api/v1/prompt")]


def _unfinished_bodies(attacked: Attacked) -> list[Blow]:
    size = 16 * MEBIBYTE
    body = b'{"prompt":"' + b"x" * (size - 11)
    blow = _post("/api/v1/prompt", body, _key(attacked), kept_back=0, announced=size + 1)
    return [blow] * 40


def _deep_pages(_attacked: Attacked) -> list[Blow]:
    path = f"/requests?status=completed&page={PAGE}&per_page=100"
    return [Blow(request_head("GET", path, _ADMIN) + b"\r\n\r", b"\n")] * 6


def _slow_readers(attacked: Attacked) -> list[Blow]:
    path = f"/api/v1/prompt/{attacked.job_id}/result"
    return [Blow(request_head("GET", path, _key(attacked)) + b"\r\n\r\n", is_answered=False, is_read=False)] * 40


def _endless_heads(_attacked: Attacked) -> list[Blow]:
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 4_000) for number in range(1_000))
    return [Blow(request_head("GET", "/health") + b"\r\n" + lines, is_answered=False)] * 20


def _flood(attacked: Attacked) -> list[Blow]:
    """Refusals by the thousand, one after the other on each connection."""
    refused = [
        request_head("GET", "/nothing"),
        request_head("GET", "/api/v1/prompts"),
        request_head("GET", "/api/v1/prompt/x/status", _key(attacked)),
        request_head("DELETE", "/api/keys/x", _key(attacked)),
        request_head("POST", "/api/v1/prompt", _key(attacked), b"Content-Length: 2") + b"\r\n\r\n{}",
    ]
    whole = [head if b"\r\n\r\n" in head else head + b"\r\n\r\n" for head in refused]
    return [Blow(b"".join(whole) * 100, is_answered=False)] * 8


def _names_twice(attacked: Attacked) -> list[Blow]:
    """What Ollama would read otherwise than the service."""
    return [_post("/api/generate", body, _key(attacked)) for body in _two_readings()]


def _two_readings() -> Iterator[bytes]:
    forbidden = {"model": "forbidden", "prompt": "x"}
    yield b'{"model":"forbidden","Model":null,"prompt":"x"}'
    yield b'{"model":"forbidden","Model":"llama3.2","prompt":"x"}'
    yield b'{"Model":"llama3.2","model":"forbidden","prompt":"x"}'
    yield b'{"model":"llama3.2","model":"forbidden","prompt":"x"}'
    yield b'{"model":"forbidden","model":"llama3.2","prompt":"x"}'
    yield b'{"model":"forbidden","prompt":"x","Prompt":null,"keep_alive":0}'
    yield json.dumps(forbidden).encode() + b" x"
    yield json.dumps(forbidden | {"options": {f"o{number}": int("9" * 307) for number in range(4)}}).encode()
    yield json.dumps(forbidden | {"stream": "yes"}).encode()
    yield json.dumps(forbidden | {"options": []}).encode()
    yield json.dumps({"model": MODEL, "prompt": "x", "options": {"num_predict": 1}, "Options": {}}).encode()
    yield '{"model":"llama3.2","prompt":"x","options":{"num_predict":1},"option\u017f":{}}'.encode()


ATTACKS = (
    Attack("zstd bombs without a key", _bombs_without_a_key, frozenset({401, 404, 405})),
    Attack("zstd bombs", _bombs, frozenset({413})),
    Attack("millions of arrays in gzip", _arrays_in_gzip, frozenset({400, 413})),
    Attack("millions of values", _plain_arrays, frozenset({400})),
    Attack("bodies that never end", _unfinished_bodies, frozenset({503})),
    Attack("pages beyond the last", _deep_pages, frozenset({200}), rows=200_000),
    Attack("readers of large results that read nothing", _slow_readers, frozenset()),
    Attack("heads that never end", _endless_heads, frozenset({400, 431})),
    Attack("refusals by the thousand", _flood, frozenset({400, 401, 403, 404})),
    Attack("names that are read in two ways", _names_twice, frozenset({400, 403})),
)
