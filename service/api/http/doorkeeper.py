"""Who may not even ask: pages of origins that are not allowed, and without keys whoever calls us by a foreign name.

It stands before all else that looks at a request, so that it holds on every path, for preflights and websockets too.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from html import escape
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from service.api.access.auth import is_admin_socket
from service.api.access.client_address import ClientAddresses
from service.api.access.hosts import Hosts
from service.api.access.origins import AllowedOrigins, is_of_host
from service.api.http.failures import Failure, failure_of_ours, problem, shaped
from service.errors import ForbiddenError

_REMEMBERED = 1024
_LONGEST_REMEMBERED = 300
"""Characters of a header: whoever sends others fills no memory with them."""
_FORWARDED_HOST = "X-Forwarded-Host"
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Corral: not allowed</title></head>
<body><h1>Corral does not answer here</h1><p>{}</p></body></html>
"""
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_UNKNOWN_ORIGIN = "null"
"""What browsers send of a page that is to have none."""
_ORIGIN_REFUSED = "pages of this origin may not call (server.allowed_origins)"


class Doorkeeper:
    """Judges each request by its ``Host`` and ``Origin``. ``hosts`` None: by whichever name it is called, as where keys
    are required, since a page of such a name has none.
    """

    def __init__(self, origins: AllowedOrigins, hosts: Hosts | None, addresses: ClientAddresses) -> None:
        self._origins = origins
        self._hosts = hosts
        self._addresses = addresses
        self._remembered = lru_cache(_REMEMBERED)(self._judge)

    def refusal(self, request: web.BaseRequest) -> Handler | None:
        """A handler that refuses the request; None for one that may come in. Every request is asked this."""
        headers = request.headers
        origin = headers.get(hdrs.ORIGIN)
        if origin is not None and len(headers.getall(hdrs.ORIGIN)) > 1:
            # No browser sends several, and each reader would take another for the page's.
            origin = _UNKNOWN_ORIGIN
        host = headers.get(hdrs.HOST, "") if request.raw_path.startswith(("/", "*")) else _host_of_target(request)
        if len(host) > _LONGEST_REMEMBERED or (origin is not None and len(origin) > _LONGEST_REMEMBERED):
            reason = self._judge(host, origin)
        else:
            reason = self._remembered(host, origin)
        if reason is None or is_admin_socket(request):
            return None
        if self._addresses.is_trusted(request.remote or ""):
            # The proxy answers for the host, and tells which one was called.
            told = [one for line in headers.getall(_FORWARDED_HOST, ()) for one in line.split(",")]
            reason = None if self._may_call(origin, (host, *told)) else _ORIGIN_REFUSED
        return None if reason is None else partial(_refuse, reason)

    def _judge(self, host: str, origin: str | None) -> str | None:
        """Why a request with these headers is refused; None: it is not."""
        if self._hosts is not None and not self._hosts.serve(host):
            return f"{_shown(host)} is no name of this service (server.allowed_hosts; or require keys: auth.required)"
        return None if self._may_call(origin, (host,)) else _ORIGIN_REFUSED

    def _may_call(self, origin: str | None, hosts: Iterable[str]) -> bool:
        return origin is None or self._origins.allow(origin) or any(is_of_host(origin, host) for host in hosts)


async def _refuse(reason: str, request: web.Request) -> web.StreamResponse:
    failure = failure_of_ours(ForbiddenError(reason))
    assert failure is not None
    if request.path in ("/health", "/health/"):
        # By this a client knows that it talks to Corral, and not to an Ollama.
        response = problem(failure, service="corral")
    else:
        response = _page(failure) if _asks_for_page(request) else shaped(request, failure)
    if hdrs.EXPECT in request.headers:
        # The client may or may not send the body now, so what comes next on this connection is unknown.
        response.force_close()
    return response


def _asks_for_page(request: web.Request) -> bool:
    is_read = request.method in (hdrs.METH_GET, hdrs.METH_HEAD)
    return is_read and "text/html" in request.headers.get(hdrs.ACCEPT, "")


def _page(failure: Failure) -> web.Response:
    text = _PAGE.format(escape(f"{failure.message}."))
    return web.Response(text=text, status=failure.status, content_type="text/html", headers=_PAGE_HEADERS)


def _host_of_target(request: web.BaseRequest) -> str:
    """The host that a target with one names, which goes before the header's (RFC 9112, 3.2.2)."""
    target = request.raw_path
    if request.method == hdrs.METH_CONNECT:
        return target
    try:
        return urlsplit(target).netloc.rpartition("@")[2]
    except ValueError:
        # It is no host that would be served.
        return target


def _shown(host: str) -> str:
    return host if len(host) <= _LONGEST_REMEMBERED and host.isascii() and host.isprintable() else "what was called"
