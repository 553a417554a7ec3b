"""The HTTP session through which every backend is called."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.tracing import Trace

_KEEP_SECONDS = 60.0
"""How long an idle connection is kept. Ollama itself never closes one; proxies before it do after about this time."""

_READ_BUFFER_BYTES = 1024 * 1024

is_new_connection: ContextVar[bool] = ContextVar("is_new_connection", default=True)
"""Whether the current task's latest request has made its own connection. Set to False before a request."""


class _Connector(aiohttp.TCPConnector):
    """Tells whether a request got a connection of its own: a kept one may have been closed by the server unnoticed."""

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the overridden method's own
    ) -> ResponseHandler:
        is_new_connection.set(True)
        return await super()._create_connection(req, traces, timeout)


def open_session() -> aiohttp.ClientSession:
    """The session for all backends. Seats bound the calls, so it does not; every call brings its own limits."""
    return aiohttp.ClientSession(
        connector=_Connector(limit=0, keepalive_timeout=_KEEP_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
        read_bufsize=_READ_BUFFER_BYTES,
        # Bytes are handed on as they came, with the headers that describe them.
        auto_decompress=False,
    )
