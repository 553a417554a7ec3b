"""Where the service listens: sockets at the configured addresses, all at one port."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from service.config.addresses import EVERY_ADDRESS, LOOPBACK
from service.errors import StartError

_log = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that may wait to be accepted."""
_TRIES = 20
"""How often any free port is chosen that must be free at all addresses."""


class _Place(NamedTuple):
    family: socket.AddressFamily
    address: str
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


def bound_sockets(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """A listening socket for each address, all at the same port; 0 is any that is free.

    A family of addresses that this machine lacks is passed over, so long as there is another to listen on. Each family
    has sockets of its own, so that no IPv4 client is seen under an IPv6 address.
    Raises StartError, which names the address and the remedy.
    """
    places = _places(hosts)
    for _ in range(_TRIES - 1):
        try:
            return _bound(places, port)
        except StartError as error:
            cause = error.__cause__
            if port or not isinstance(cause, OSError) or cause.errno != errno.EADDRINUSE:
                raise
    return _bound(places, port)


def is_of_this_machine(hosts: Iterable[str]) -> bool:
    """Whether nobody else can reach these addresses."""
    return all(host == "::1" or host.startswith("127.") for host in hosts)


def shown_urls(hosts: Sequence[str], port: int) -> str:
    """Where the service is found, for people: one URL, or several with "and" between."""
    if any(host in EVERY_ADDRESS for host in hosts) or set(hosts) == set(LOOPBACK):
        return f"http://localhost:{port}"
    return " and ".join(f"http://{f'[{host}]' if ':' in host else host}:{port}" for host in hosts)


def shown_hosts(hosts: Sequence[str]) -> str:
    """Who is meant by the addresses, within a sentence."""
    return "this machine" if any(host in EVERY_ADDRESS for host in hosts) else " or ".join(hosts)


def _places(hosts: Sequence[str]) -> list[_Place]:
    found: dict[_Place, None] = {}
    for host in hosts:
        try:
            known = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise _refusal(host, None, error) from error
        for family, _, _, _, sockaddr in known:
            found[_Place(family, str(sockaddr[0]), sockaddr)] = None
    # An address of its own would be in the way of every address of its family.
    whole = {place.family for place in found if place.address in EVERY_ADDRESS}
    return [place for place in found if place.address in EVERY_ADDRESS or place.family not in whole]


def _bound(places: Sequence[_Place], port: int) -> list[socket.socket]:
    lacking: list[tuple[_Place, OSError]] = []
    with ExitStack() as undoing:
        bound: list[socket.socket] = []
        for place in places:
            try:
                one = undoing.enter_context(_socket_at(place, port))
            except OSError as error:
                if not _is_lacking(place, error):
                    raise _refusal(place.address, port, error) from error
                lacking.append((place, error))
                continue
            port = port or int(one.getsockname()[1])
            bound.append(one)
        if not bound:
            place, reason = lacking[0]
            raise _refusal(place.address, port, reason) from reason
        undoing.pop_all()
    for place, reason in lacking:
        _log.info("nobody is served at %s, as this machine has no such address: %s", place.address, reason.strerror)
    return bound


def _socket_at(place: _Place, port: int) -> socket.socket:
    one = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((place.sockaddr[0], port, *place.sockaddr[2:]))
        one.listen(BACKLOG)
    except BaseException:
        one.close()
        raise
    return one


def _is_lacking(place: _Place, error: OSError) -> bool:
    """Whether the machine has nothing of this family, rather than not this address."""
    is_general = place.address in (*EVERY_ADDRESS, *LOOPBACK)
    return error.errno == errno.EAFNOSUPPORT or (is_general and error.errno == errno.EADDRNOTAVAIL)


def _refusal(host: str, port: int | None, error: Exception) -> StartError:
    where = f"[{host}]" if ":" in host else host
    if port is not None:
        where += f":{port}"
    remedy = (
        "another program listens there; stop it or choose another with --port"
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        else "choose another with --host and --port"
    )
    return StartError(f"address {where}: {getattr(error, 'strerror', None) or error}; {remedy}")
