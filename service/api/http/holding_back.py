"""Answers to keys that nobody has come late, so that guessing takes long."""

from __future__ import annotations

import asyncio

from aiohttp import web

from service.api.access.auth import AUTH
from service.api.access.failed_sign_ins import FAILED_SIGN_INS
from service.api.context import LONG_LIVED
from service.api.http.callers import CALLERS, is_gone
from service.cancel_scope import CancelScope


async def hold_back(request: web.Request) -> None:
    """Return when this answer to an unknown key may go out, or when the service stops; no body is read meanwhile.

    Raises LimitReachedError, at once, when too many of this address are held back, and ConnectionResetError when the
    caller has left, whose place is free then.
    """
    address, now = request.app[AUTH].addresses.owner_of(request), asyncio.get_running_loop().time()
    with request.app[FAILED_SIGN_INS].held(address, now) as seconds:
        if seconds:
            await _held(request, seconds)


async def _held(request: web.Request, seconds: float) -> None:
    callers, long_lived = request.app[CALLERS], request.app[LONG_LIVED]
    with CancelScope() as scope, callers.waiting(request, scope), long_lived.seated(scope):
        if not scope.is_asked:
            await asyncio.sleep(seconds)
    if is_gone(request):
        raise ConnectionResetError("the caller has left")
