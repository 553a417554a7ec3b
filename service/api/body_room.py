"""How many bytes of requests' bodies are in memory: a bound on their sum, and half of it for each owner.

A body of at most SMALL_BYTES is not counted. What a connection may have read ahead is more than that, so the number of
connections bounds their sum; and a small request finds its way while large ones fill the room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from service.errors import BodiesFullError

SMALL_BYTES = 64 * 1024
_PATIENCE_SECONDS = 10.0
"""How long a body that has not begun waits for room. It takes none meanwhile: its sender's kernel holds it."""
_UNPACKED_AT_ONCE = 2

_FULL = (
    "the bodies of requests under way fill the memory that is set aside for them (server.max_bodies_bytes); "
    "try again in a moment"
)
_FULL_OF_OWN = (
    "the bodies of your own requests under way fill your half of the memory that is set aside for bodies "
    "(server.max_bodies_bytes); try again in a moment"
)


class _Body(NamedTuple):
    owner: str
    size: int


class _Waiting(NamedTuple):
    holder: object
    body: _Body
    is_in: asyncio.Future[None]


class BodyRoom:
    """The account of all bodies. A ``holder`` is the request to which a body belongs, and counts as one body."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._most_of_an_owner = most_bytes // 2
        self._by_owner: dict[str, int] = {}
        self._bodies: dict[int, _Body] = {}
        self._waiting: deque[_Waiting] = deque()
        self.held = 0
        """Bytes that are counted now."""
        self.unpacking = asyncio.Semaphore(_UNPACKED_AT_ONCE)
        """Who unpacks a step: each uses up a processor, and others wait for those too."""

    async def reserve(self, holder: object, owner: str, size: int) -> None:
        """Count a body of this size before any of it is read. Raises BodiesFullError when there is no room for it, and
        none soon.
        """
        if size > self._most_of_an_owner:
            raise self._full(owner, size)
        if self._fits(owner, size):
            self._set(holder, _Body(owner, size))
            return
        waiting = _Waiting(holder, _Body(owner, size), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await waiting.is_in
        except TimeoutError:
            raise self._full(owner, size) from None
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def hold(self, holder: object, owner: str, size: int) -> None:
        """Count the body with the size that it has by now. Raises BodiesFullError when that is beyond the room."""
        known = self._bodies.get(id(holder))
        more = size - (known.size if known is not None else 0)
        if more > 0 and not self._fits(owner, more):
            raise self._full(owner, more)
        self._set(holder, _Body(owner, size))
        if more < 0:
            self._let_in()

    def release(self, holder: object) -> None:
        """The body is gone, or stored; nothing happens where it was not counted."""
        body = self._bodies.pop(id(holder), None)
        if body is not None:
            self._count(body.owner, -body.size)
            self._let_in()

    def _fits(self, owner: str, more: int) -> bool:
        return self.held + more <= self._most and self._by_owner.get(owner, 0) + more <= self._most_of_an_owner

    def _full(self, owner: str, more: int) -> BodiesFullError:
        is_own = self._by_owner.get(owner, 0) + more > self._most_of_an_owner
        return BodiesFullError(_FULL_OF_OWN if is_own else _FULL, retry_after_seconds=1)

    def _set(self, holder: object, body: _Body) -> None:
        before = self._bodies.get(id(holder))
        self._bodies[id(holder)] = body
        self._count(body.owner, body.size - (before.size if before is not None else 0))

    def _count(self, owner: str, more: int) -> None:
        self.held += more
        own = self._by_owner.get(owner, 0) + more
        if own:
            self._by_owner[owner] = own
        else:
            # Owners without keys are addresses, of which there is no end.
            self._by_owner.pop(owner, None)

    def _let_in(self) -> None:
        """Give the room that has become free to those who wait for it, in the order in which they came."""
        for waiting in tuple(self._waiting):
            if not waiting.is_in.done() and self._fits(waiting.body.owner, waiting.body.size):
                self._waiting.remove(waiting)
                self._set(waiting.holder, waiting.body)
                waiting.is_in.set_result(None)
