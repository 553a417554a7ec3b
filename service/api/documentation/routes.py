"""``/openapi.json``, ``/docs`` and ``/redoc``."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from service.api.context import CONFIG
from service.api.documentation.assets import viewer_files
from service.api.http.json_replies import json_bytes
from service.api.http.raw_replies import whole_reply
from service.api.pages import FileReply, page

# Both viewers write styles into their elements, and ReDoc searches in a worker of its own making.
_POLICY = {
    "Content-Security-Policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src blob:; "
        "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
}


class _Document:
    """The document of ``app``: built when it is first asked for, since that takes 0.1 s and 3 MB, and most
    services are never asked.
    """

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._building: asyncio.Task[bytes] | None = None

    async def read(self) -> bytes:
        if self._building is None:
            # In a thread, so that other requests are answered meanwhile.
            self._building = asyncio.create_task(asyncio.to_thread(self._build))
        return await asyncio.shield(self._building)

    def _build(self) -> bytes:
        # Imported here, since the import takes most of that memory.
        from service.api.documentation.document import build_document

        return json_bytes(build_document(self._app, are_keys_required=self._app[CONFIG].auth.required))


_VIEWERS = web.AppKey("viewers", dict[str, Path])
_DOCUMENT = web.AppKey("document", _Document)


def prepare_documentation(app: web.Application) -> None:
    """Find what the pages need."""
    app[_VIEWERS] = viewer_files()
    app[_DOCUMENT] = _Document(app)


async def openapi(request: web.Request) -> web.StreamResponse:
    body = await request.app[_DOCUMENT].read()
    return whole_reply(request, 200, (("Content-Type", "application/json"), ("Cache-Control", "no-store")), body)


async def docs(request: web.Request) -> web.StreamResponse:
    return page(request, "docs.html", _POLICY)


async def redoc(request: web.Request) -> web.StreamResponse:
    return page(request, "redoc.html", _POLICY)


async def asset(request: web.Request) -> web.StreamResponse:
    file = request.app[_VIEWERS].get(request.match_info["name"])
    if file is None:
        raise web.HTTPNotFound
    return FileReply(file, headers={"Cache-Control": "public, max-age=86400", "Vary": "Origin"})


ROUTES = (
    web.get("/openapi.json", openapi),
    web.get("/docs", docs),
    web.get("/redoc", redoc),
    web.get("/docs/assets/{name}", asset),
)
