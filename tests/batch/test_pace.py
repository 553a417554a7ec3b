"""What is waited out, and what is not."""

from __future__ import annotations

import asyncio

import pytest

from corral.batch.pace import Pace, what_passes
from corral.errors import (
    BadRequestError,
    CallTimeoutError,
    ConnectionFailedError,
    CorralError,
    RateLimitError,
    ServerError,
)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ServerError("the queue is full", 503), "the service is busy: the queue is full"),
        (ServerError("x", 502), "the service is away"),
        (ServerError("x", 504), "the service is away"),
        (RateLimitError("5 an hour", 429), "a limit of this key: 5 an hour"),
        (ConnectionFailedError("refused"), "the service is away: refused"),
        (CallTimeoutError("silent"), "the service is away: silent"),
        (ServerError("x", 500), None),
        (ServerError("x", 503, is_final=True), None),
        (BadRequestError("x", 400), None),
    ],
)
def test_what_passes_is_known_by_its_kind(error: CorralError, words: str | None) -> None:
    found = what_passes(error)
    assert found is None if words is None else (found or "").startswith(words)


async def until_held(pace: Pace) -> None:
    while pace.waits_for is None:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)


async def test_trouble_holds_all_until_it_is_over_or_something_has_changed() -> None:
    pace, tries = Pace(), 0

    async def fail_once() -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ServerError("full", 503, retry_after_seconds=3600)
        return "through"

    async def other() -> str:
        return "other"

    first = asyncio.create_task(pace.through(fail_once))
    await until_held(pace)
    second = asyncio.create_task(pace.through(other))
    await asyncio.sleep(0)
    assert (first.done(), second.done()) == (False, False)
    pace.wake()
    assert (await first, await second) == ("through", "other")
    assert not pace.waits_for


async def test_what_went_through_before_the_trouble_does_not_hide_it() -> None:
    pace, goes = Pace(), asyncio.Event()

    async def slow() -> None:
        await goes.wait()

    async def full() -> None:
        raise ServerError("full", 503, retry_after_seconds=3600)

    early = asyncio.create_task(pace.through(slow))
    await asyncio.sleep(0)
    late = asyncio.create_task(pace.through(full))
    await until_held(pace)
    goes.set()
    await early
    assert pace.waits_for == "the service is busy: full"
    late.cancel()


async def test_a_server_that_fails_itself_is_asked_a_few_times_and_a_refusal_once() -> None:
    for error, most in ((ServerError("x", 500, retry_after_seconds=0), 4), (BadRequestError("x", 400), 1)):
        pace, tries = Pace(), 0

        async def attempt(error: CorralError = error) -> None:
            nonlocal tries
            tries += 1
            raise error

        task = asyncio.create_task(pace.through(attempt))
        while not task.done():
            pace.wake()
            await asyncio.sleep(0)
        with pytest.raises(type(error)):
            task.result()
        assert tries == most
