"""The pages and their files, read from disk as they are; browsers ask again each time and are told 304."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from service.config import find_static_folder

_HEADERS = {
    # Nothing from elsewhere, no inline script, no frame around us: what a model writes stays text whatever it is.
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

# Not guessed: what a system's own table says of .js differs, and with nosniff a wrong word is a page without a script.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

_FILES = web.AppKey("static_files", dict[str, Path])


def prepare_pages(app: web.Application) -> None:
    """Learn which files there are: no other path of this machine can be asked for."""
    app[_FILES] = {path.name: path for path in find_static_folder().iterdir() if path.is_file()}


async def home(request: web.Request) -> web.StreamResponse:
    """The page for a browser; for a program what Ollama says there."""
    if "text/html" in request.headers.get("Accept", ""):
        return _file(request, "index.html", {"Vary": "Accept"})
    return web.Response(text="Ollama is running", headers={"Vary": "Accept", "Cache-Control": "no-store"})


async def prompt_list(request: web.Request) -> web.StreamResponse:
    return _file(request, "list.html")


async def static_file(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    if name not in request.app[_FILES]:
        raise web.HTTPNotFound
    return _file(request, name)


def _file(request: web.Request, name: str, headers: dict[str, str] | None = None) -> web.FileResponse:
    path = request.app[_FILES][name]
    kind = {"Content-Type": _TYPES[path.suffix]} if path.suffix in _TYPES else {}
    return web.FileResponse(path, headers={**_HEADERS, **kind, **(headers or {})})


ROUTES = (
    web.get("/", home),
    web.get("/list", prompt_list),
    web.get("/static/{name}", static_file),
)
