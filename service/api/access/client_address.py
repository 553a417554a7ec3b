"""Where a request comes from: the address of the connection, or what trusted proxies say about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

_Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]

_NEIGHBOURHOOD = 64
"""The bits of an IPv6 address that name its owner: one who has an address usually has the whole /64 around it."""
_LOOPBACK = "127.0.0.1"
"""The owner on this machine, whose programs try ``::1`` and then ``127.0.0.1``."""
_LOOPBACKS = (ip_address(_LOOPBACK), ip_address("::1"))


class ClientAddresses:
    """Finds the owner of requests without a key. Only proxies that are ``trusted`` are believed."""

    def __init__(self, trusted: Networks) -> None:
        self._trusted = trusted
        # A proxy that knows us as "localhost" comes from either.
        self._trusts_loopback = any(one in network for one in _LOOPBACKS for network in trusted)

    def owner_of(self, request: web.Request) -> str:
        """The client's IPv4 address or IPv6 /64, one for all of loopback; "" when the connection is gone already."""
        return owner_named(self.address_of(request))

    def address_of(self, request: web.Request) -> str:
        """The client's own address, as far as it is told; "" when the connection is gone already."""
        peer = request.remote or ""
        if not self._trusted:
            return peer
        address = _parsed(peer)
        for said in reversed(list(_chain(request))):
            if address is None or not self._is_trusted(address):
                break
            further = _parsed(said)
            if further is None:
                break
            address = further
        return str(address) if address is not None else peer

    def is_excepted(self, peer: str) -> bool:
        """Whether a connection comes from this machine or from a trusted proxy, each of which may stand for many."""
        address = _parsed(peer)
        return address is not None and (address.is_loopback or self._is_trusted(address))

    def is_trusted(self, peer: str) -> bool:
        """Whether a connection comes from a trusted proxy."""
        address = _parsed(peer) if self._trusted else None
        return address is not None and self._is_trusted(address)

    def _is_trusted(self, address: _Address) -> bool:
        return (self._trusts_loopback and address.is_loopback) or any(address in network for network in self._trusted)


def _chain(request: web.Request) -> Iterable[str]:
    """The client and the proxies behind it as the headers tell, nearest last. X-Forwarded-For goes before Forwarded."""
    lines = request.headers.getall("X-Forwarded-For", ())
    if lines:
        return [one.strip() for line in lines for one in line.split(",")]
    return [element.get("for", "") for element in request.forwarded]


@lru_cache(maxsize=4096)
def _parsed(text: str) -> _Address | None:
    """An address as proxies write it, with or without a port; None for anything else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(maxsize=4096)
def owner_named(text: str) -> str:
    """The owner that somebody means by an address; anything else as it is."""
    address = _parsed(text)
    if address is not None and address.is_loopback:
        return _LOOPBACK
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _NEIGHBOURHOOD), strict=False))
    return str(address) if address is not None else text
