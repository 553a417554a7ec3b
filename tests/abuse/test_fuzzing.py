"""Bodies, heads, chunks and frames by chance: no failure of ours, nothing in the log, and nothing left of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.support.bodies_of_calls import calls
from tests.support.fuzzing import Target, fuzzed_service
from tests.support.raw_client import request_of
from tests.support.requests_by_chance import Chunked, chunks, frames, heads

WARM_UP = 40
EXAMPLES = 80
"""In the suite, of each kind; the long lane makes batch after batch of so many."""

Batch = Callable[[Target, int, int], None]
"""Tries as many requests by chance as the first number says; the second says which."""


def _bounded(examples: int, number: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The same requests in every run. A failing one is reported as it is."""
    bounds = settings(
        max_examples=examples,
        phases=(Phase.generate,),
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: seed(number)(bounds(test))


def try_bodies(target: Target, examples: int, number: int) -> None:
    @_bounded(examples, number)
    @given(call=calls())
    def attempt(call: tuple[str, bytes]) -> None:
        path, body = call
        target.attempt([request_of("POST", path, body)], is_whole=True)

    attempt()


def try_heads(target: Target, examples: int, number: int) -> None:
    @_bounded(examples, number)
    @given(packets=heads())
    def attempt(packets: list[bytes]) -> None:
        target.attempt(packets, packets[0].partition(b" ")[0].decode("latin-1"), is_whole=False)

    attempt()


def try_chunks(target: Target, examples: int, number: int) -> None:
    @_bounded(examples, number)
    @given(chunked=chunks())
    def attempt(chunked: Chunked) -> None:
        answers = target.attempt(chunked.packets, is_whole=chunked.is_right)
        assert not chunked.is_right or answers[0].status in (200, 202), answers

    attempt()


def try_frames(target: Target, examples: int, number: int) -> None:
    @_bounded(examples, number)
    @given(sent=frames())
    def attempt(sent: list[bytes]) -> None:
        target.websocket(sent, *([b"Sec-WebSocket-Extensions: permessage-deflate"] if len(sent) % 2 else []))

    attempt()


KINDS: dict[str, Batch] = {"bodies": try_bodies, "heads": try_heads, "chunks": try_chunks, "frames": try_frames}
every_kind = pytest.mark.parametrize("batch", KINDS.values(), ids=KINDS)


@every_kind
async def test_what_chance_makes_fails_nothing_and_leaves_nothing(batch: Batch, tmp_path: Path) -> None:
    async with fuzzed_service(tmp_path) as target:
        await asyncio.to_thread(batch, target, WARM_UP, 0)
        before = target.footprint()
        await asyncio.to_thread(batch, target, EXAMPLES, 1)
        await target.until_as_before(before)


@pytest.mark.long
# As long as was asked for; every wait within has an end of its own.
@pytest.mark.timeout(0)
@every_kind
async def test_however_long_chance_goes_on_it_fails_nothing_and_leaves_nothing(
    batch: Batch, tmp_path: Path, fuzz_minutes: float
) -> None:
    async with fuzzed_service(tmp_path) as target:
        for number in range(10):
            await asyncio.to_thread(batch, target, EXAMPLES, number)
        before = target.footprint()
        end = time.monotonic() + fuzz_minutes * 60
        # Chance differs from one run to the next.
        number = time.time_ns()
        while time.monotonic() < end:
            number += 1
            await asyncio.to_thread(batch, target, EXAMPLES, number)
            target.check_log()
        await target.until_as_before(before)


async def test_a_request_in_chunks_is_the_same_wherever_it_is_cut(tmp_path: Path) -> None:
    body = json.dumps({"model": "m", "prompt": "x"}).encode()
    head = b"POST /api/v1/prompt HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    text = head + b"5;a=b\r\n%s\r\n%x\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (body[:5], len(body) - 5, body[5:])

    def cut_everywhere(target: Target) -> None:
        for place in range(1, len(text)):
            [answer] = target.attempt([text[:place], text[place:]], is_whole=True)
            assert answer.status == 202, (place, answer)

    async with fuzzed_service(tmp_path) as target:
        await asyncio.to_thread(partial(cut_everywhere, target))
