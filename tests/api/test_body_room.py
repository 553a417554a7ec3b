"""The account of bodies in memory: nothing is counted twice, nothing stays, and nobody has more than half."""

from __future__ import annotations

import asyncio

import pytest

from service.api.body_room import BodyRoom
from service.errors import BodiesFullError


class Holder:
    """A request."""


async def test_what_is_held_is_the_sum_of_what_was_told_and_nothing_is_left_of_what_is_released() -> None:
    room = BodyRoom(1000)
    first, second = Holder(), Holder()
    await room.reserve(first, "a", 100)
    room.hold(second, "b", 30)
    room.hold(second, "b", 90)
    room.hold(first, "a", 40)
    assert room.held == 130
    room.release(first)
    room.release(first)
    room.release(second)
    assert room.held == 0
    assert not room._by_owner
    assert not room._bodies


async def test_an_owner_has_half_and_the_others_have_the_rest() -> None:
    room = BodyRoom(1000)
    bodies = [Holder() for _ in range(5)]
    await room.reserve(bodies[0], "a", 500)
    with pytest.raises(BodiesFullError, match="of your own requests") as refused:
        room.hold(bodies[1], "a", 1)
    assert refused.value.retry_after_seconds == 1
    await room.reserve(bodies[2], "b", 400)
    room.hold(bodies[3], "c", 100)
    with pytest.raises(BodiesFullError, match="the bodies of requests under way fill"):
        room.hold(bodies[4], "d", 1)
    assert room.held == 1000


async def test_a_body_that_does_not_fit_any_more_is_counted_as_before() -> None:
    room, body = BodyRoom(1000), Holder()
    room.hold(body, "a", 300)
    with pytest.raises(BodiesFullError):
        room.hold(body, "a", 501)
    assert room.held == 300
    room.hold(body, "a", 500)
    assert room.held == 500


async def test_one_that_can_never_fit_does_not_wait() -> None:
    room = BodyRoom(1000)
    with pytest.raises(BodiesFullError):
        room.reserve(Holder(), "a", 501).send(None)


async def test_those_who_wait_come_in_as_they_came_when_there_is_room() -> None:
    room, held = BodyRoom(1000), [Holder() for _ in range(5)]
    entered: list[int] = []

    async def enter(number: int, owner: str, size: int) -> None:
        await room.reserve(held[number], owner, size)
        entered.append(number)

    await enter(0, "a", 400)
    async with asyncio.TaskGroup() as waiting:
        waiting.create_task(enter(1, "a", 300))
        waiting.create_task(enter(2, "a", 200))
        waiting.create_task(enter(3, "a", 100))
        await asyncio.sleep(0)
        # The last fits beside the first, and does not wait for those who ask for more.
        assert entered == [0, 3]
        room.release(held[0])
        assert room.held == 400
        room.release(held[3])
    assert entered == [0, 3, 1, 2]
    assert room.held == 500


async def test_who_leaves_while_waiting_is_not_let_in() -> None:
    room, first = BodyRoom(1000), Holder()
    await room.reserve(first, "a", 500)
    waiting = asyncio.create_task(room.reserve(Holder(), "a", 500))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    room.release(first)
    assert room.held == 0


async def test_who_has_waited_in_vain_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.body_room._PATIENCE_SECONDS", 0.01)
    room, first, second = BodyRoom(1000), Holder(), Holder()
    await room.reserve(first, "a", 500)
    with pytest.raises(BodiesFullError):
        await room.reserve(second, "a", 500)
    assert not room._waiting
