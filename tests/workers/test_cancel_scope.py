"""A stretch of a task can be ended from outside, and its task goes on; what else cancels the task ends it."""

from __future__ import annotations

import asyncio

import pytest

from service.cancel_scope import CancelScope


async def stretch(begun: asyncio.Future[CancelScope]) -> str:
    with CancelScope() as scope:
        begun.set_result(scope)
        await asyncio.Event().wait()
    await asyncio.sleep(0)
    return "went on"


def begun_stretch() -> tuple[asyncio.Task[str], asyncio.Future[CancelScope]]:
    begun: asyncio.Future[CancelScope] = asyncio.get_running_loop().create_future()
    return asyncio.create_task(stretch(begun)), begun


async def test_the_task_goes_on_behind_a_stretch_that_was_ended() -> None:
    task, begun = begun_stretch()
    scope = await begun
    scope()
    scope()
    assert await task == "went on"
    assert task.cancelling() == 0


async def test_who_cancels_the_task_ends_it_whether_or_not_the_stretch_was_ended_too() -> None:
    for is_ended_too in (False, True):
        task, begun = begun_stretch()
        scope = await begun
        if is_ended_too:
            scope()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_error_passes() -> None:
    with pytest.raises(ValueError, match="mine"), CancelScope():
        raise ValueError("mine")


async def test_the_task_itself_only_takes_note_and_nothing_happens_behind_the_stretch() -> None:
    with CancelScope() as scope:
        scope()
        await asyncio.sleep(0)
    assert scope.is_asked
    with CancelScope() as later:
        pass
    await asyncio.create_task(_calls(later))
    await asyncio.sleep(0)
    assert not later.is_asked


async def _calls(scope: CancelScope) -> None:
    scope()
