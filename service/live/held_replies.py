"""What all replies take that are held in memory, and the turns of those that grow while that is as much as it may be.

A reply counts with what there is of it beyond its first 64 KiB: its bytes that no caller has read, or that are kept for
others, and the text of its answer. Small replies, and streams whose callers keep up, are never looked at here.

Who grows waits while the replies together are beyond the bound, or those of its owner beyond half of it; the reply that
began first goes first. What is held is given back when a caller has taken it, when it is stored, and when nobody is
left who could ask for it. Where those that wait hold more than a bound themselves, and so wait for each other, the
first of them goes on all the same: so also a reply that alone is larger than the bound comes to its end, and the bound
is passed by no more than that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

FREE_BYTES = 64 * 1024
"""Of each reply. It never waits while no more of it is untaken, however long its answer is by then."""
_PIECE_BYTES = 1024 * 1024
"""By about as much a reply grows before it asks again."""


class HeldReplies:
    """The account of the whole process."""

    def __init__(self, most_bytes: int, most_of_an_owner: int | None = None) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0
        self._most_of_an_owner = most_bytes if most_of_an_owner is None else most_of_an_owner
        self._by_owner: dict[str, int] = {}
        self._numbers = count(1)
        self._waiting: dict[GrowingReply, asyncio.Future[None]] = {}

    @property
    def waiting(self) -> int:
        """How many replies wait for their turn."""
        return len(self._waiting)

    def has_room_for(self, reply: GrowingReply) -> bool:
        """Whether a reply may grow at once."""
        return (
            self.held_bytes <= self.most_bytes
            and self._by_owner.get(reply.owner, 0) <= self._most_of_an_owner
            # While there is room, others wait only for what their owners hold.
            and not any(waiting.owner == reply.owner for waiting in self._waiting)
        )

    def reply(self, owner: str = "") -> GrowingReply:
        """A reply that begins now."""
        return GrowingReply(self, next(self._numbers), owner)

    def changed(self, by_bytes: int, owner: str) -> None:
        """The replies of an owner hold so much more, or less."""
        self.held_bytes += by_bytes
        own = self._by_owner.get(owner, 0) + by_bytes
        if own:
            self._by_owner[owner] = own
        else:
            self._by_owner.pop(owner, None)
        if self._waiting and by_bytes < 0:
            self._give_turns()

    async def turn(self, reply: GrowingReply) -> None:
        """Wait until a reply may grow by another piece. Returns at once where there is room, and nobody waits."""
        if self.has_room_for(reply) or reply.is_taken:
            return
        turn = self._waiting[reply] = asyncio.get_running_loop().create_future()
        self._give_turns()
        try:
            await turn
        finally:
            if self._waiting.pop(reply, None) is not None:
                self._give_turns()

    def taken(self, reply: GrowingReply) -> None:
        """Nearly all that has come of this reply is taken: it need not wait any longer."""
        if reply in self._waiting:
            self._wake(reply)

    def _give_turns(self) -> None:
        in_order = sorted(self._waiting, key=lambda reply: reply.number)
        room_bytes = self.most_bytes - self.held_bytes
        if sum(reply.held_bytes for reply in in_order) > self.most_bytes:
            # Whatever the others give back, there would be no room.
            self._wake(in_order[0])
            return
        room_of = {reply.owner: self._room_of(reply.owner, in_order) for reply in in_order}
        for reply in in_order:
            if room_bytes < 0:
                break
            if room_of[reply.owner] >= 0:
                room_bytes -= _PIECE_BYTES
                room_of[reply.owner] -= _PIECE_BYTES
                self._wake(reply)

    def _room_of(self, owner: str, waiting: Sequence[GrowingReply]) -> int:
        """How much more an owner may hold; 0, enough for one piece, where its replies wait for each other."""
        room = self._most_of_an_owner - self._by_owner.get(owner, 0)
        held_by_waiting = sum(reply.held_bytes for reply in waiting if reply.owner == owner)
        return max(room, 0) if held_by_waiting > self._most_of_an_owner else room

    def _wake(self, reply: GrowingReply) -> None:
        turn = self._waiting.pop(reply)
        if not turn.done():
            turn.set_result(None)


class GrowingReply:
    """One reply, and what is held of it in its parts."""

    __slots__ = ("_account", "held_bytes", "number", "owner", "untaken_bytes")

    def __init__(self, account: HeldReplies, number: int, owner: str) -> None:
        self._account = account
        self.owner = owner
        self.number = number
        """Which reply it is, in the order in which they began."""
        self.held_bytes = 0
        self.untaken_bytes = 0
        """What is held of it on its way to a caller."""

    @property
    def is_taken(self) -> bool:
        """Whether its caller takes it as it comes."""
        return self.untaken_bytes <= FREE_BYTES

    def part(self, *, is_untaken: bool = True) -> HeldPart:
        """A part of it, which is given back by itself; ``is_untaken``: while a caller has not taken it."""
        return HeldPart(self, is_untaken=is_untaken)

    def changed(self, by_bytes: int, *, is_untaken: bool) -> None:
        """A part holds so much more, or less."""
        self.held_bytes += by_bytes
        if is_untaken:
            self.untaken_bytes += by_bytes
            if by_bytes < 0 and self.is_taken:
                self._account.taken(self)
        self._account.changed(by_bytes, self.owner)

    async def turn(self) -> None:
        """Wait until it may grow."""
        await self._account.turn(self)


class HeldPart:
    """What is held of a reply in one place. It belongs to whoever holds the bytes, and is given back with them."""

    __slots__ = ("_bytes", "_is_untaken", "_reply")

    def __init__(self, reply: GrowingReply, *, is_untaken: bool) -> None:
        self._reply = reply
        self._is_untaken = is_untaken
        self._bytes = 0

    def set(self, held_bytes: int) -> None:
        """So much is held now."""
        change = held_bytes - self._bytes
        if change:
            self._bytes = held_bytes
            self._reply.changed(change, is_untaken=self._is_untaken)

    def __del__(self) -> None:
        # Whatever way its holder has gone.
        self.set(0)
