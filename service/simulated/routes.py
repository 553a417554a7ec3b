"""How a request reaches its handler: who may ask, what is counted, which faults apply; 404, 405, redirects."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, partial
from html import escape
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from service.simulated.delivery import ConnectionBrokenError, Delivery, Stream, page
from service.simulated.errors import ReplyError
from service.simulated.faults import Disruption, FaultKind
from service.simulated.simulation import SIMULATION, Simulation
from service.simulated.wire import JSON, TEXT, Family, Reply, family_of

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdError, decompress
else:
    from backports.zstd import ZstdError, decompress

_LOCAL_SCHEMES = frozenset(("app", "file", "tauri", "vscode-webview", "vscode-file"))
_LOCAL_DOMAINS = (".localhost", ".local", ".internal")


class _Call(Protocol):
    @property
    def model(self) -> str: ...

    @property
    def prompt(self) -> str: ...

    def failure(self, error: ReplyError, family: Family) -> Reply: ...


C = TypeVar("C", bound=_Call)
Read = Callable[[bytes], C]
ReadForm = Callable[[str, bytes], C]
Serve = Callable[[Simulation, Delivery, Disruption, C, Family], Awaitable[web.StreamResponse]]
Inform = Callable[[Simulation, web.Request, bytes], Awaitable[Reply | Stream]]


def work(path: str, read: Read[C], serve: Serve[C]) -> Handler:
    """The handler of a route that needs a model: what `read` makes of the body, `serve` answers."""
    return _worker(path, lambda request: partial(_unpacked_first, read) if _is_packed(path, request) else read, serve)


def form_work(path: str, read: ReadForm[C], serve: Serve[C]) -> Handler:
    """The same of a body whose type says how to read it, which `read` is given before the body."""
    return _worker(path, lambda request: partial(read, request.headers.get("Content-Type", "")), serve)


def _worker(path: str, reader_of: Callable[[web.Request], Read[C]], serve: Serve[C]) -> Handler:
    family = family_of(path)

    async def handle(request: web.Request) -> web.StreamResponse:
        simulation = request.app[SIMULATION]
        observations = simulation.observations
        if not _may_ask(simulation, request):
            return web.Response(status=403)
        body = await request.read()
        observations.requests[path] += 1
        call, refusal = _read(reader_of(request), body)
        model, prompt = (call.model, call.prompt) if call is not None else ("", "")
        observations.arrived(path, model, prompt, body, request.headers)
        disruption = simulation.faults.take(path, model, prompt)
        flush = simulation.settings.flush_each_token
        delivery = Delivery(request, observations, disruption, flush_each_token=flush)
        status = 0
        try:
            response = await _instead(delivery, disruption, family, call)
            if response is None and call is not None:
                response = await serve(simulation, delivery, disruption, call, family)
            elif response is None and refusal is not None:
                response = await delivery.whole(family.refusal(refusal))
            assert response is not None
            status = response.status
            return response
        except ConnectionBrokenError:
            return web.Response()
        except (ConnectionResetError, asyncio.CancelledError) as left:
            if not delivery.is_broken:
                observations.closed_connections += 1
            if isinstance(left, asyncio.CancelledError):
                raise
            return web.Response()
        finally:
            observations.left(status, is_whole=delivery.is_whole)

    return handle


def information(path: str, inform: Inform) -> Handler:
    """The handler of a route that needs no runner. Faults that name its endpoint apply."""
    family = family_of(path)

    async def handle(request: web.Request) -> web.StreamResponse:
        simulation = request.app[SIMULATION]
        if not _may_ask(simulation, request):
            return web.Response(status=403)
        simulation.observations.requests[path] += 1
        disruption = simulation.faults.take(path)
        delivery = Delivery(request, simulation.observations, disruption)
        try:
            response = await _instead(delivery, disruption, family)
            if response is not None:
                return response
            await delivery.before_first_byte()
            reply = await inform(simulation, request, await request.read())
            return await (delivery.whole(reply) if isinstance(reply, Reply) else delivery.stream(reply))
        except ReplyError as error:
            return await delivery.whole(family.refusal(error))
        except (ConnectionBrokenError, ConnectionResetError):
            return web.Response()

    return handle


def _is_packed(path: str, request: web.Request) -> bool:
    """Whether Ollama unpacks the body: only this route takes one that is packed (wire contract 1.7)."""
    return path == "/v1/responses" and request.headers.get("Content-Encoding") == "zstd"


def _unpacked_first(read: Read[C], body: bytes) -> C:
    try:
        unpacked = decompress(body)
    except ZstdError:
        raise ReplyError(400, "failed to decompress zstd body") from None
    return read(unpacked)


def _read(read: Read[C], body: bytes) -> tuple[C | None, ReplyError | None]:
    try:
        return read(body), None
    except ReplyError as error:
        return None, error


async def _instead(
    delivery: Delivery, disruption: Disruption, family: Family, call: _Call | None = None
) -> web.StreamResponse | None:
    """What a fault answers before Ollama's own handlers are reached."""
    fault = disruption.fault(FaultKind.NOT_OLLAMA, FaultKind.ERROR, FaultKind.FLOOD)
    if fault is None:
        return None
    await delivery.before_first_byte()
    if fault.kind is FaultKind.NOT_OLLAMA:
        return await delivery.whole(page(fault))
    if fault.kind is FaultKind.FLOOD:
        return await delivery.flood(fault)
    if fault.body is not None:
        return await delivery.whole(Reply(fault.reply_status, fault.body.encode(), JSON))
    error = ReplyError(fault.reply_status, fault.reply_message)
    if call is not None:
        return await delivery.whole(call.failure(error, family))
    return await delivery.whole(family.failure(error, is_stream=False))


def unknown_route(known: Mapping[str, frozenset[str]]) -> Handler:
    """What Ollama says of a path or a method that it does not have; slashes and dots too many are redirected."""

    async def handle(request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        cleaned = _cleaned(path)
        if cleaned != path:
            return _redirected(request, 307, cleaned)
        simulation = request.app[SIMULATION]
        disruption = simulation.faults.take(request.path)
        if (fault := disruption.fault(FaultKind.NOT_OLLAMA)) is not None:
            return await Delivery(request, simulation.observations, disruption).whole(page(fault))
        methods = known.get(request.path)
        if methods is not None:
            if request.method == "OPTIONS":
                return web.Response(status=204)
            return _text(405, "405 method not allowed", {"Allow": ", ".join(sorted(methods))})
        trimmed = request.path.rstrip("/")
        if trimmed and trimmed != request.path and request.method in known.get(trimmed, frozenset()):
            return _redirected(request, 301 if request.method == "GET" else 307, trimmed)
        return _text(404, "404 page not found", {})

    return handle


def _cleaned(path: str) -> str:
    """The path as Go's ``ServeMux`` wants it, though Go escapes once more what is escaped already."""
    kept = [part for part in path.split("/")[1:] if part not in ("", ".")]
    while ".." in kept:
        place = kept.index("..")
        del kept[max(0, place - 1) : place + 1]
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")


def _redirected(request: web.Request, status: int, path: str) -> web.Response:
    query = request.rel_url.raw_query_string
    location = f"{path}?{query}" if query else path
    response = web.Response(status=status, headers={"Location": location})
    if request.method in ("GET", "HEAD"):
        words = "Moved Permanently" if status == 301 else "Temporary Redirect"
        response.headers["Content-Type"] = "text/html; charset=utf-8"
        response.body = f'<a href="{escape(location)}">{words}</a>.\n\n'.encode()
    return response


def _text(status: int, message: str, headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=status, body=message.encode(), headers={"Content-Type": TEXT, **headers})


def _may_ask(simulation: Simulation, request: web.Request) -> bool:
    """Ollama's guard against web pages of others: 403 for a foreign Origin, or a foreign Host (wire contract 0)."""
    if not simulation.settings.is_host_checked:
        return True
    origin = request.headers.get("Origin")
    host = request.headers.get("Host", "")
    return _is_local_host(host) and (origin is None or _is_local_origin(origin, host))


@lru_cache(maxsize=256)
def _is_local_origin(origin: str, host: str) -> bool:
    parts = urlsplit(origin)
    is_own = parts.netloc == host
    return is_own or parts.scheme in _LOCAL_SCHEMES or parts.hostname in ("localhost", "127.0.0.1", "0.0.0.0")


@lru_cache(maxsize=256)
def _is_local_host(host: str) -> bool:
    name = (urlsplit(f"//{host}").hostname or "").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name in ("", "localhost", socket.gethostname().lower()) or name.endswith(_LOCAL_DOMAINS)
    return address.is_loopback or address.is_private or address.is_unspecified
