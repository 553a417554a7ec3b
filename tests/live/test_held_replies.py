"""The account of all replies that are held in memory: who waits, whose turn it is, and that all of it is given back."""

from __future__ import annotations

import asyncio

from service.live.held_replies import FREE_BYTES, GrowingReply, HeldReplies
from service.live.relay import READ_BYTES, Head, Relay

MIB = 1 << 20


async def turns() -> None:
    """Let everybody go on who may."""
    for _ in range(3):
        await asyncio.sleep(0)


def large(account: HeldReplies) -> GrowingReply:
    """A reply of which just so much is held that it has to wait."""
    reply = account.reply()
    reply.changed(FREE_BYTES + 1, is_untaken=True)
    return reply


def waits(account: HeldReplies, reply: GrowingReply, order: list[int]) -> asyncio.Task[None]:
    """A reply that asks for its turn, and notes when it has it."""

    async def ask() -> None:
        await account.turn(reply)
        order.append(reply.number)

    return asyncio.create_task(ask())


async def test_nobody_waits_while_there_is_room() -> None:
    account = HeldReplies(10 * MIB)
    part = account.reply().part()
    part.set(10 * MIB)
    async with asyncio.TaskGroup() as group:
        group.create_task(account.reply().turn())
    assert account.waiting == 0


async def test_whoever_began_first_goes_first_when_something_is_given_back() -> None:
    account, order = HeldReplies(10 * MIB), list[int]()
    holder = account.reply().part()
    holder.set(11 * MIB)
    first, second, third = (large(account) for _ in range(3))
    tasks = [waits(account, reply, order) for reply in (third, first, second)]
    await turns()
    assert (order, account.waiting) == ([], 3)
    holder.set(8 * MIB)
    # There is room for two of the pieces by which they grow; the others come when it is given back.
    await turns()
    assert order == [first.number, second.number]
    holder.set(0)
    await asyncio.wait(tasks)
    assert order == [first.number, second.number, third.number]


async def test_a_new_reply_does_not_pass_by_those_that_wait() -> None:
    account, order = HeldReplies(10 * MIB), list[int]()
    holder, waiting = account.reply().part(), large(account)
    holder.set(11 * MIB)
    tasks = [waits(account, waiting, order)]
    await turns()
    tasks.append(waits(account, large(account), order))
    await turns()
    assert account.waiting == 2
    holder.set(0)
    await asyncio.wait(tasks)
    assert order == sorted(order)


async def test_an_owner_that_holds_its_half_waits_and_no_other_does() -> None:
    account, order = HeldReplies(10 * MIB, 5 * MIB), list[int]()
    holder, own, other = account.reply("ann").part(), account.reply("ann"), account.reply("bob")
    holder.set(6 * MIB)
    own.changed(FREE_BYTES + 1, is_untaken=True)
    other.changed(FREE_BYTES + 1, is_untaken=True)
    tasks = [waits(account, reply, order) for reply in (own, other)]
    await turns()
    assert order == [other.number]
    assert account.has_room_for(other)
    holder.set(4 * MIB)
    await asyncio.wait(tasks)
    assert order == [other.number, own.number]


async def test_of_an_owner_whose_replies_wait_for_each_other_the_first_goes_on() -> None:
    account, order = HeldReplies(10 * MIB, 5 * MIB), list[int]()
    replies = [account.reply("ann") for _ in range(2)]
    parts = [reply.part() for reply in replies]
    for part in parts:
        part.set(3 * MIB)
    tasks = [waits(account, reply, order) for reply in reversed(replies)]
    await turns()
    assert order == [replies[0].number]
    parts[0].set(0)
    await asyncio.wait(tasks)
    assert order == [replies[0].number, replies[1].number]


async def test_where_all_that_hold_anything_wait_the_first_goes_on_and_no_other() -> None:
    account, order = HeldReplies(10 * MIB), list[int]()
    replies = [account.reply() for _ in range(3)]
    parts = [reply.part() for reply in replies]
    for part in parts:
        part.set(4 * MIB)
    tasks = [waits(account, reply, order) for reply in reversed(replies)]
    await turns()
    assert (order, account.waiting) == ([1], 2)
    parts[0].set(5 * MIB)
    tasks.append(waits(account, replies[0], order))
    await turns()
    assert (order, account.waiting) == ([1, 1], 2)
    parts[0].set(0)
    parts[1].set(0)
    await asyncio.wait(tasks)
    assert account.held_bytes == 4 * MIB


async def test_those_that_wait_for_each_other_do_not_wait_for_a_small_one() -> None:
    account, order = HeldReplies(10 * MIB), list[int]()
    replies = [account.reply() for _ in range(3)]
    parts = [reply.part() for reply in replies]
    for part in parts:
        part.set(4 * MIB)
    small = account.reply().part()
    small.set(1)
    tasks = [waits(account, reply, order) for reply in replies]
    await turns()
    assert order == [1]
    parts[0].set(0)
    await asyncio.wait(tasks)


async def test_a_reply_that_alone_is_larger_than_the_bound_comes_to_its_end() -> None:
    account = HeldReplies(MIB)
    reply = account.reply()
    part = reply.part()
    for size in range(0, 20 * MIB, MIB):
        part.set(size)
        await account.turn(reply)
    assert account.waiting == 0


async def test_whoever_leaves_while_it_waits_is_waited_for_by_nobody() -> None:
    account, order = HeldReplies(10 * MIB), list[int]()
    replies = [account.reply() for _ in range(2)]
    parts = [reply.part() for reply in replies]
    parts[0].set(4 * MIB)
    parts[1].set(4 * MIB)
    holder = account.reply().part()
    holder.set(3 * MIB)
    tasks = [waits(account, reply, order) for reply in replies]
    await turns()
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert account.waiting == 1
    holder.set(0)
    await asyncio.wait(tasks[1:])
    assert (order, account.waiting) == ([2], 0)


async def test_a_stream_waits_only_until_its_caller_has_taken_it() -> None:
    account, order = HeldReplies(10 * MIB), list[int]()
    holder, stream = account.reply().part(), account.reply()
    holder.set(11 * MIB)
    answer, relayed = stream.part(is_untaken=False), stream.part()
    answer.set(MIB)
    await stream.turn()
    relayed.set(FREE_BYTES + 1)
    tasks = [waits(account, stream, order)]
    await turns()
    assert account.waiting == 1
    relayed.set(FREE_BYTES)
    await asyncio.wait(tasks)
    assert order == [stream.number]


def test_what_is_held_is_given_back_with_whoever_holds_it() -> None:
    account = HeldReplies(MIB)
    part = account.reply().part()
    part.set(5)
    assert account.held_bytes == 5
    del part
    assert account.held_bytes == 0


def relay_of(account: HeldReplies, *, is_kept: bool, size: int = 4 * READ_BYTES) -> Relay:
    """A relay whose whole reply has come."""
    relay = Relay(is_kept=is_kept)
    relay.held_part = account.reply().part()
    relay.begin(Head(200, {}))
    for _ in range(size // 1024):
        relay.append(b"x" * 1024)
    relay.held_part.set(relay.held_bytes)
    relay.end()
    return relay


def test_a_reply_is_let_go_of_as_it_is_read() -> None:
    account = HeldReplies(MIB)
    relay = relay_of(account, is_kept=False)
    left = []
    position = 0
    while relay.has_more(position):
        data, position = relay.read(position)
        assert len(data) <= READ_BYTES
        left.append(account.held_bytes)
    assert left == [3 * READ_BYTES, 2 * READ_BYTES, READ_BYTES, 0]


def test_a_kept_reply_stays_until_it_is_stored_and_its_last_reader_has_left() -> None:
    for ways_out in (("settle", "leave"), ("leave", "settle")):
        account = HeldReplies(MIB)
        relay = relay_of(account, is_kept=True)
        assert b"".join(relay.pieces()) == b"x" * 4 * READ_BYTES
        getattr(relay, ways_out[0])()
        assert account.held_bytes == 4 * READ_BYTES
        getattr(relay, ways_out[1])()
        assert account.held_bytes == 0


def test_a_reply_that_nobody_reads_any_more_is_not_gathered() -> None:
    account = HeldReplies(MIB)
    relay = relay_of(account, is_kept=False)
    relay.leave()
    assert account.held_bytes == 0
    relay.append(b"more")
    assert (relay.held_bytes, relay.size) == (0, 4 * READ_BYTES + 4)


def test_an_attempt_that_failed_leaves_nothing() -> None:
    account = HeldReplies(MIB)
    relay = relay_of(account, is_kept=True)
    relay.reset()
    assert account.held_bytes == 0
