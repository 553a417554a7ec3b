"""Which pages may call: the setting ``server.allowed_origins``."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from service.api.access.hosts import read_place

_PORTS = {"http": 80, "https": 443}
"""Those that browsers leave out."""


class AllowedOrigins:
    """The origins as they are configured: ``*`` for any, ``scheme://*`` for all of a scheme, or exactly one."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._exact = frozenset(allowed)
        self._schemes = frozenset(one.partition("://")[0] for one in self._exact if one.endswith("://*"))
        self.is_any = "*" in self._exact

    def allow(self, origin: str) -> bool:
        """Whether pages of this origin may call; of our own see :func:`is_of_host`."""
        if self.is_any:
            return True
        origin = origin.lower()
        scheme, separator, _ = origin.partition("://")
        # Pages of files have nothing behind it.
        return origin in self._exact or (bool(separator) and scheme in self._schemes)


ORIGINS = web.AppKey("allowed_origins", AllowedOrigins)


def is_of_host(origin: str, host: str) -> bool:
    """Whether an origin has host and port of a ``Host`` header. Schemes are not compared, since behind a proxy with TLS
    the service sees http; a port that the origin leaves out may stand in the header.
    """
    scheme, _, rest = origin.partition("://")
    page, called = read_place(rest), read_place(host)
    if page is None or called is None or not page.name or page.name != called.name:
        return False
    return page.port == called.port or (page.port is None and called.port == _PORTS.get(scheme.lower()))
