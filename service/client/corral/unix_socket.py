"""A service's own Unix socket as a transport of the client: who may open it counts as an admin."""

from __future__ import annotations

from pathlib import Path

import httpx2

_OF_A_KEY = ("Authorization", "X-Api-Key")


class SocketTransport(httpx2.AsyncHTTPTransport):
    """Sends everything to the socket. A key, which the environment may hold for other servers, stays here."""

    def __init__(self, path: Path) -> None:
        super().__init__(uds=str(path))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        for name in _OF_A_KEY:
            request.headers.pop(name, None)
        return await super().handle_async_request(request)
