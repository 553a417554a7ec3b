"""How many connections there may be: of one address, and in all.

One address could take all descriptors of the process otherwise, and then neither its store nor its backends could open
what they need.
"""

from __future__ import annotations

import asyncio
import resource
from typing import NamedTuple

from service.api.access.client_address import ClientAddresses, owner_named
from service.api.http.raw_replies import SERVER

MOST_OF_AN_ADDRESS = 1024
_SPARE = 128
"""Descriptors that are left to files, pipes, backends and the store when all connections are taken."""
_KEPT = 64
"""The last descriptors, which no caller gets whatever else is open."""
_RETRY_SECONDS = 5


class Bounds(NamedTuple):
    """How many connections there may be; ``most_descriptors`` bounds the numbers of their descriptors."""

    most: int
    most_of_an_address: int
    most_descriptors: int

    @classmethod
    def of_this_process(cls) -> Bounds:
        """What the process's limit on descriptors allows."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Where very few are allowed, half of them are for callers.
        return cls(max(limit - _SPARE, limit // 2), MOST_OF_AN_ADDRESS, max(limit - _KEPT, limit // 2))


class Connections:
    """The connections of callers, counted by address. This machine and trusted proxies have as many as they need."""

    def __init__(self, addresses: ClientAddresses, bounds: Bounds, *, any_page_may_call: bool) -> None:
        self._addresses = addresses
        self._bounds = bounds
        self._any_page_may_call = any_page_may_call
        self._by_address: dict[str, int] = {}
        self._all = 0

    def __len__(self) -> int:
        return self._all

    def enter(self, transport: asyncio.BaseTransport) -> str | bytes:
        """The address under which a new connection is counted, "" for one that counts in the sum alone; or a reply with
        which it is refused.
        """
        socket, peer = transport.get_extra_info("socket"), transport.get_extra_info("peername")
        bounds = self._bounds
        if self._all >= bounds.most or (socket is not None and socket.fileno() >= bounds.most_descriptors):
            return self._refusal(503, "Service Unavailable", "there are as many connections as can be; try again later")
        address = ""
        if isinstance(peer, tuple) and not self._addresses.is_excepted(peer[0]):
            address = owner_named(peer[0])
            own = self._by_address.get(address, 0)
            if own >= bounds.most_of_an_address:
                what = f"this address has {own} connections already, which is the most that may; close some"
                return self._refusal(429, "Too Many Requests", what)
            self._by_address[address] = own + 1
        self._all += 1
        return address

    def leave(self, address: str) -> None:
        """A connection that was counted under this address is gone."""
        self._all -= 1
        if address:
            own = self._by_address[address] - 1
            if own:
                self._by_address[address] = own
            else:
                del self._by_address[address]

    def _refusal(self, status: int, phrase: str, what: str) -> bytes:
        """A reply to whatever is asked: the request has not been read, so its path is not known."""
        body = f'{{"error":"{what}"}}'
        lines = (
            f"HTTP/1.1 {status} {phrase}",
            "Content-Type: application/json; charset=utf-8",
            f"Content-Length: {len(body)}",
            f"Retry-After: {_RETRY_SECONDS}",
            f"Server: {SERVER}",
            "Connection: close",
            # Which page asks has not been read either.
            *(("Access-Control-Allow-Origin: *",) if self._any_page_may_call else ()),
        )
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
