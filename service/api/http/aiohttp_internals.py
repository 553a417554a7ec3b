"""Which private names of aiohttp this service uses, and a check that the installed aiohttp still has them.

Each is used for speed, by one module, which names it in its first lines. asyncio's transports are in the table, too:
coalesced writes go to them past aiohttp.
"""

from __future__ import annotations

import asyncio
import dis
import inspect
from typing import NamedTuple

import aiohttp
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_protocol import RequestHandler

from service.errors import StartError


class _Use(NamedTuple):
    module: str
    owner: type
    name: str


USES = (
    _Use("service.api.http.fast_router", web.Application, "_make_request"),
    _Use("service.api.http.fast_router", web.Request, "_match_info"),
    _Use("service.api.http.fast_router", web.Server, "request_factory"),
    _Use("service.api.http.fast_router", web.Server, "request_handler"),
    _Use("service.api.http.fast_router", web.Server, "connection_made"),
    *(
        _Use("service.api.http.caller_connection", RequestHandler, name)
        for name in (
            "_messages",
            "_request_count",
            "_payload_parser",
            "_upgraded",
            "_parser",
            "_current_request",
            "_lingering_time",
        )
    ),
    _Use("service.api.http.caller_connection", web.Server, "_loop"),
    _Use("service.api.http.caller_connection", web.Server, "_kwargs"),
    _Use("service.api.http.fast_router", RequestHandler, "_max_msg_queue_size"),
    _Use("service.api.http.fast_router", RequestHandler, "_msg_queue_resume_size"),
    _Use("service.api.http.raw_replies", web.StreamResponse, "_status"),
    _Use("service.api.http.raw_replies", web.StreamResponse, "_send_headers_immediately"),
    _Use("service.api.http.receiving", StreamReader, "_buffer"),
    _Use("service.api.access.auth", web.UrlMappingMatchInfo, "http_exception"),
    _Use("service.api.http.middlewares", AbstractStreamWriter, "output_size"),
    _Use("service.coalescing", asyncio.WriteTransport, "write"),
    _Use("service.coalescing", asyncio.WriteTransport, "is_closing"),
    _Use("service.coalescing", asyncio.WriteTransport, "abort"),
)


def check_internals() -> None:
    """Raises StartError when the installed aiohttp is not as this package knows it."""
    missing = [f"{use.owner.__name__}.{use.name} (for {use.module})" for use in USES if not _has(use.owner, use.name)]
    make = getattr(web.Application, "_make_request", None)
    if make is not None and "_cls" not in inspect.signature(make).parameters:
        missing.append("_cls of Application._make_request (for service.api.http.fast_router)")
    if missing:
        raise StartError(
            f"aiohttp {aiohttp.__version__} no longer has {', '.join(missing)}; "
            "install the version that this release was made for (pyproject.toml)"
        )


def _has(owner: type, name: str) -> bool:
    """Whether the class has an attribute of this name, or one of its methods sets it."""
    methods = filter(inspect.isfunction, vars(owner).values())
    return hasattr(owner, name) or any(
        step.opname == "STORE_ATTR" and step.argval == name
        for method in methods
        for step in dis.get_instructions(method)
    )
