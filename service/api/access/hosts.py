"""By which names this service may be called without keys.

Whoever has a name can have it lead to an address of ours (DNS rebinding), and a browser then takes a page of that name
and us for one site. Served are names that nobody outside can have made lead here, and those that the operator allows.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

_RESOLVER_FILE = Path("/etc/resolv.conf")
_HOSTS_FILE = Path("/etc/hosts")
_LONGEST = 253
"""Of a name (RFC 1035)."""
_PRIVATE = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".svc")
"""Ends of names that nobody can register: RFC 6761, 6762 and 8375, ICANN's .internal, those of routers and clusters."""
_IN_BRACKETS = re.compile(r"\[([0-9a-f:.]+)(?:%[^\]]*)?\](?::([0-9]{0,5}))?")
_NAME = re.compile(r"([0-9a-z_][0-9a-z_.-]*)?(?::([0-9]{0,5}))?")
_OLD_ADDRESS = re.compile(r"[0-9a-fx.]+")


class Place(NamedTuple):
    """A host, and the port where one is named. ``name`` is in lower case, without a dot at its end, and "" for none."""

    name: str
    port: int | None = None


def read_place(text: str) -> Place | None:
    """What a ``Host`` header or an origin names; None for what is no host. IPv6 comes without brackets and zone."""
    text = text.strip().lower()
    if len(text) > 2 * _LONGEST:
        return None
    found = _NAME.fullmatch(text) or _IN_BRACKETS.fullmatch(text)
    if found is not None:
        return Place((found[1] or "").removesuffix("."), int(found[2]) if found[2] else None)
    # Some leave the brackets away.
    bare = text.partition("%")[0]
    return Place(bare) if _is_address(bare) else None


class Hosts:
    """The names that are served: ``allowed`` ones, ``own`` ones, and those of no public host. ``namespace``: of the pod
    in Kubernetes, whose services are called NAME.NAMESPACE.
    """

    def __init__(self, allowed: Collection[str], own: Iterable[str] = (), namespace: str | None = None) -> None:
        self._is_any = "*" in allowed
        self._exact = {*own, *(one for one in allowed if not one.startswith("."))}
        self._ends = (*_PRIVATE, *(one for one in allowed if one.startswith(".")))
        self._namespace = namespace

    def serve(self, text: str) -> bool:
        """Whether a request to this host is answered; ``text`` as the request has it, with or without a port."""
        if self._is_any:
            return True
        place = read_place(text)
        if place is None or len(place.name) > _LONGEST:
            return False
        name = place.name
        return (
            "." not in name
            or name.endswith(self._ends)
            or name in self._exact
            or _is_address(name)
            or self._is_service(name)
        )

    def _is_service(self, name: str) -> bool:
        before, _, namespace = name.partition(".")
        return bool(before) and namespace == self._namespace


def own_hosts(allowed: Collection[str]) -> Hosts:
    """The rule for this machine, as its files have it now; no name is looked up."""
    searched = _searched(_RESOLVER_FILE)
    return Hosts(allowed, _own_names(socket.gethostname(), searched), _namespace(searched))


def _own_names(name: str, searched: Iterable[str]) -> set[str]:
    """The machine's name, alone and in its networks' domains, and what the file of hosts calls it besides."""
    name = name.lower().removesuffix(".")
    own = {name, *(f"{name}.{domain}" for domain in searched)}
    for line in _lines(_HOSTS_FILE):
        _, *names = line.lower().partition("#")[0].split() or ("",)
        if name in names:
            own.update(names)
    return own


def _searched(file: Path) -> list[str]:
    """The domains in which names are looked up; of several such lines the last counts (resolv.conf(5))."""
    found: list[str] = []
    for line in _lines(file):
        keyword, *domains = line.lower().split() or ("",)
        if keyword in ("search", "domain"):
            found = [domain.removesuffix(".") for domain in domains]
    return found


def _namespace(searched: list[str]) -> str | None:
    """The pod's own, from ``NAMESPACE.svc.…``; None outside Kubernetes."""
    if not os.environ.get("KUBERNETES_SERVICE_HOST") or not searched:
        return None
    namespace, _, rest = searched[0].partition(".")
    return namespace if rest == "svc" or rest.startswith("svc.") else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        pass
    else:
        return True
    if not _OLD_ADDRESS.fullmatch(name):
        return False
    # Such as 127.1, which no public name can be.
    try:
        socket.inet_aton(name)
    except OSError:
        return False
    return True
