"""The baseline for anything that answers JSON: bare aiohttp that does nothing with it."""

from __future__ import annotations

from aiohttp import web

from tests.bench.listening import run, serve_app

# As long as the status of a job.
STATUS = {
    "id": "0199f3c4-2b1c-7d3e-9a56-0f1e2d3c4b5a",
    "status": "queued",
    "position": 417,
    "model": "llama3.2",
    "priority": "normal",
    "attempt": 0,
    "created_at": "2026-01-01T12:00:00.000Z",
}


async def echo(request: web.Request) -> web.Response:
    """What was sent, read and written as JSON."""
    return web.json_response(await request.json())


async def status(_request: web.Request) -> web.Response:
    """An object made into JSON each time."""
    return web.json_response(STATUS)


if __name__ == "__main__":
    application = web.Application()
    application.add_routes([web.post("/echo", echo), web.get("/status", status)])
    run(serve_app(application))
