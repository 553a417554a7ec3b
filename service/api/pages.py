"""The pages and their files, read from disk as they are. Browsers ask again each time, and are told 304 when nothing
has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from service.api.http.callers import CALLERS
from service.api.http.failures import PROBLEM_JSON, Problem
from service.api.http.operation import HTML, TEXT, Access, Operation, Operations, Parameter, ReplyDoc, refusals
from service.config import find_static_folder

_HEADERS = {
    # Nothing is loaded from elsewhere, no inline script runs, no page frames ours: what a model writes stays text.
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    # A cache must not give a page of another origin what was kept for one of ours.
    "Vary": "Origin",
}

# Written down here, since systems differ in what they say of .js: with nosniff, a wrong type is a page without script.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

PAGES = "pages"

_FILES = web.AppKey("static_files", dict[str, Path])


def prepare_pages(app: web.Application) -> None:
    """Learn which files there are, so that no other path of this machine can be asked for."""
    app[_FILES] = {path.name: path for path in find_static_folder().iterdir() if path.is_file()}


async def home(request: web.Request) -> web.StreamResponse:
    """The page for a browser; for a program, what Ollama answers at this path."""
    if "text/html" in request.headers.get("Accept", ""):
        return page(request, "index.html", {"Vary": "Accept, Origin"})
    return web.Response(text="Ollama is running", headers={"Vary": "Accept, Origin", "Cache-Control": "no-store"})


async def prompt_list(request: web.Request) -> web.StreamResponse:
    return page(request, "list.html")


async def static_file(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    if name not in request.app[_FILES]:
        raise web.HTTPNotFound
    return page(request, name)


class FileReply(web.FileResponse):
    """A file, for as long as its caller takes it."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        assert isinstance(request, web.Request)
        with request.app[CALLERS].sending(request, 0):
            return await super().prepare(request)


def page(request: web.Request, name: str, headers: Mapping[str, str] | None = None) -> FileReply:
    """One of the files, with the headers that every page has, unless ``headers`` say otherwise."""
    path = request.app[_FILES][name]
    kind = {"Content-Type": _TYPES[path.suffix]} if path.suffix in _TYPES else {}
    return FileReply(path, headers={**_HEADERS, **kind, **(headers or {})})


ROUTES = (
    web.get("/", home),
    web.get("/list", prompt_list),
    web.get("/static/{name}", static_file),
)


def page_operation(summary: str) -> Operation:
    """What the document says of a page."""
    return Operation(summary=summary, tag=PAGES, access=Access.OPEN, replies={200: ReplyDoc("The page.", {HTML: str})})


def file_operation(summary: str) -> Operation:
    """What the document says of a page's files."""
    return Operation(
        summary=summary,
        tag=PAGES,
        access=Access.OPEN,
        parameters=(Parameter("name", "path", "The file's name."),),
        replies={200: ReplyDoc("The file.", {"*/*": bytes}), **refusals(Problem, PROBLEM_JSON, 404)},
    )


OPERATIONS: Operations = {
    ("GET", "/"): Operation(
        summary="Write a prompt",
        description="A page for a browser; for a program what Ollama says there. ``HEAD`` is answered with 200.",
        tag=PAGES,
        access=Access.OPEN,
        replies={200: ReplyDoc("The page, or ``Ollama is running``.", {HTML: str, TEXT: str})},
    ),
    ("GET", "/list"): page_operation("Look at all prompts"),
    ("GET", "/static/{name}"): file_operation("Read a file of the pages"),
    # The composition root serves it, since its handler reads from all parts of the service.
    ("GET", "/metrics"): Operation(
        summary="Read the metrics, for Prometheus",
        tag="operation",
        access=Access.OPEN,
        replies={200: ReplyDoc("The metrics.", {TEXT: str, "application/openmetrics-text": str})},
    ),
}
