"""The baseline for whole jobs: a bare aiohttp relay. What is posted goes to the backend, what it streams comes back."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from tests.bench.listening import run, serve_app

SESSION = web.AppKey("session", aiohttp.ClientSession)


async def relay(request: web.Request) -> web.StreamResponse:
    """Pass on every piece as it comes."""
    body = await request.read()
    async with request.app[SESSION].post(request.path, data=body) as answer:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response


async def _session(app: web.Application) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(sys.argv[1], connector=connector) as session:
        app[SESSION] = session
        yield


if __name__ == "__main__":
    application = web.Application()
    application.cleanup_ctx.append(_session)
    for path in ("/api/generate", "/api/chat"):
        application.router.add_post(path, relay)
    run(serve_app(application))
