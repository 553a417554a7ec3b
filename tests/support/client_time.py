"""Time as a test makes it, for a client: no sleep takes any, and the clock is turned by hand."""

from __future__ import annotations

import asyncio

from corral import AsyncClient, Client


class OwnTime:
    """The sleeps that were asked for, and the clock; the clock goes on by what is slept."""

    def __init__(self, client: AsyncClient | Client) -> None:
        self.now = 1_000.0
        self.sleeps: list[float] = []
        client._parts.time.clock = lambda: self.now
        client._parts.time.sleep = self._sleep

    async def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)
