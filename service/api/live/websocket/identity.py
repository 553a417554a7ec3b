"""Who is at the other end of a websocket, and until when its token or key is good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from service.api.access.auth import AUTH
from service.api.access.caller import CALLER, Caller
from service.api.context import CLOCK
from service.api.http.holding_back import hold_back
from service.errors import ServiceError, UnauthenticatedError, UnknownKeyError

GRACE_SECONDS = 10.0
"""How long a client may take to send ``auth``, at first where keys are required and again when its token has ended,
before the connection is closed.
"""


class Identity:
    """The caller. ``tell`` hears when its token or key has ended, and ``close`` unless it authenticates again."""

    __slots__ = ("_close", "_request", "_tell", "_timer", "caller")

    def __init__(self, request: web.Request, tell: Callable[[ServiceError], None], close: Callable[[], object]) -> None:
        self._request = request
        self._tell = tell
        self._close = close
        self._timer: asyncio.TimerHandle | None = None
        self.caller: Caller = request[CALLER]

    async def begin(self) -> None:
        """Read the token in the address, if there is one. Raises ConnectionResetError when the client leaves."""
        token = self._request.query.get("token")
        if token:
            try:
                await self.authenticate(token)
            except ServiceError as error:
                self._refuse(error)
        elif self.caller.is_known:
            self._wait_for_end()
        else:
            self._timer = asyncio.get_running_loop().call_later(GRACE_SECONDS, self._close)

    async def authenticate(self, token: str) -> None:
        """Take the caller of a new token, who may be the same for longer or another. Raises UnauthenticatedError, and
        LimitReachedError and ConnectionResetError as :func:`hold_back` does.
        """
        try:
            self.caller = self._request.app[AUTH].by_token(token, self._request)
        except UnknownKeyError:
            await hold_back(self._request)
            raise
        self._wait_for_end()

    def require(self) -> Caller:
        """The caller. Raises UnauthenticatedError where keys are required and it has shown none."""
        if not self.caller.is_known:
            raise UnauthenticatedError("an API key is needed: trade it at POST /api/token and send the token as auth")
        return self.caller

    def end(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait_for_end(self) -> None:
        self.end()
        ends_at = self.caller.ends_at
        if ends_at is not None:
            seconds = (ends_at - self._request.app[CLOCK].now_ms()) / 1000
            self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), self._expire)

    def _expire(self) -> None:
        self._refuse(UnauthenticatedError("the token has expired; send auth with a new one"))

    def _refuse(self, error: ServiceError) -> None:
        self._tell(error)
        self._timer = asyncio.get_running_loop().call_later(GRACE_SECONDS, self._close)
