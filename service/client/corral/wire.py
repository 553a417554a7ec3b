"""Requests and their replies, through the HTTP library.

Failures come out as errors of :mod:`corral.errors`. There are connections for each event loop, and no end of them: the
calls under way are limited elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import re
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from threading import Lock
from typing import Any, NamedTuple

import httpx2

from corral.errors import (
    CallTimeoutError,
    ConfigurationError,
    ConnectionFailedError,
    CorralError,
    ResponseError,
    error_of_status,
)
from corral.pieces import LAST_DATA, LAST_TYPES, lines, parsed
from corral.refusals import json_of, not_ours, require_access, require_success, words_of
from corral.settings import CONNECT_SECONDS, Address, Settings

_KEPT_SECONDS = 30.0
_KEPT_CONNECTIONS = 100
_OF_PARENTS: list[object] = []
"""Connections of the process that this one was forked from. They are never touched: what the system knows of them is
shared, so that closing one here would disturb the other.
"""

CLOSED = "the client is closed: make a new one"


class Reply(NamedTuple):
    """A whole reply as it came."""

    status: int
    content: bytes
    request_id: str | None
    error: ResponseError | None
    """What a reply is that is no success."""


class Event(NamedTuple):
    """A server-sent event."""

    name: str
    data: str
    position: str | None
    """Its id, or that of the last event that had one."""


class _Connections(NamedTuple):
    """Those of one event loop."""

    http: httpx2.AsyncClient
    keeper: AsyncGenerator[httpx2.AsyncClient]
    forgotten: weakref.finalize[Any, Any]
    """Closes them when a client is dropped that nobody has closed."""


def _end_soon(loop: asyncio.AbstractEventLoop, keeper: AsyncGenerator[httpx2.AsyncClient]) -> None:
    if loop.is_closed():
        return

    async def end() -> None:
        await keeper.aclose()

    asyncio.run_coroutine_threadsafe(end(), loop)


def json_bytes(body: Any) -> bytes:
    """Raises ConfigurationError for what is no JSON."""
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"this cannot be sent as JSON: {error}") from None


class Wire:
    """The connections to one server."""

    def __init__(
        self,
        address: Address,
        key: str | None,
        headers: Mapping[str, str],
        settings: Settings,
        transport: httpx2.AsyncBaseTransport | None,
    ) -> None:
        self._address = address
        self._settings = settings
        self._transport = transport
        own = {"User-Agent": "ollama-corral", "Accept": "*/*", **headers}
        if key is not None:
            # The address's name and password, which are a proxy's, need the other header.
            own |= {"Authorization": f"Bearer {key}"} if address.login is None else {"X-Api-Key": key}
        try:
            httpx2.URL(address.url)
        except httpx2.InvalidURL as error:
            raise ConfigurationError(f"{address.url!r}: is no address: {error}") from None
        given: object = transport
        if given is not None and not isinstance(given, httpx2.AsyncBaseTransport):
            raise ConfigurationError(f"transport = {given!r}: give an httpx2.AsyncBaseTransport")
        self._headers = httpx2.Headers(own)
        self._key = None if key is None else re.compile(rf"(?<![\w-]){re.escape(key)}(?![\w-])")
        self._lock = Lock()
        self._by_loop: dict[asyncio.AbstractEventLoop, _Connections] = {}
        self._is_closed = False

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        silence_seconds: float | None = None,
    ) -> Any:
        """The JSON of a whole reply. ``silence_seconds``: for how long the server may say nothing, if not ``timeout``.

        Raises ResponseError for a reply that is no success, or no JSON.
        """
        async with self._opened(method, path, content, headers, silence_seconds) as response:
            with self._translated():
                await response.aread()
            require_success(response)
            return json_of(response)

    async def reply(
        self,
        path: str,
        content: bytes,
        headers: Mapping[str, str],
        silence_seconds: float | None = None,
    ) -> Reply:
        """A whole reply to a POST as it came, whatever its status is."""
        async with self._opened("POST", path, content, headers, silence_seconds) as response:
            with self._translated():
                await response.aread()
            error: ResponseError | None = None
            try:
                require_success(response)
            except ResponseError as refusal:
                self._hide_key(refusal)
                error = refusal
            return Reply(response.status_code, response.content, response.headers.get("x-request-id"), error)

    async def health(self) -> tuple[int, Any]:
        """Status and JSON of ``GET /health``, None for what is no JSON; the status is not judged."""
        async with self._opened("GET", "/health", None, None) as response:
            with self._translated():
                await response.aread()
            try:
                return response.status_code, json.loads(response.content)
            except (ValueError, RecursionError):
                require_access(response)
                return response.status_code, None

    def refusal(self, status: int, body: Any) -> ResponseError:
        """The error for a reply that :meth:`health` gave."""
        error = error_of_status(status, words_of(body) or "the server refused", json_bytes(body), None, is_final=True)
        self._hide_key(error)
        return error

    def away(self, status: int) -> ConnectionFailedError:
        """The error for a proxy that answers in place of its server."""
        return ConnectionFailedError(
            f"a proxy answers at {self._address.url}, and its server is away (HTTP {status}): start the server"
        )

    @asynccontextmanager
    async def events(self, path: str, headers: Mapping[str, str]) -> AsyncIterator[AsyncIterator[Event]]:
        """Server-sent events."""
        async with self._opened("GET", path, None, {**headers, "Accept": "text/event-stream"}) as response:
            await self._require_stream(response)
            yield self._events_of(response)

    @asynccontextmanager
    async def objects(
        self, path: str, content: bytes, headers: Mapping[str, str], silence_seconds: float | None = None
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The objects of a streamed reply: one a line, or one an event."""
        async with self._opened("POST", path, content, headers, silence_seconds) as response:
            await self._require_stream(response)
            is_events = response.headers.get("content-type", "").startswith("text/event-stream")
            yield self._data_of(response) if is_events else self._lines_of(response)

    async def aclose(self) -> None:
        """Close the connections of the running loop, and open no more."""
        self._is_closed = True
        with self._lock:
            found = self._by_loop.pop(asyncio.get_running_loop(), None)
        if found is not None:
            found.forgotten.detach()
            await found.keeper.aclose()

    def begin_anew(self) -> None:
        """Leave all connections to the process that this one was forked from."""
        _OF_PARENTS.append(self._by_loop)
        for connections in self._by_loop.values():
            connections.forgotten.detach()
        self._by_loop, self._lock = {}, Lock()

    @asynccontextmanager
    async def _opened(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str] | None,
        silence_seconds: float | None = None,
    ) -> AsyncIterator[httpx2.Response]:
        seconds = self._settings.timeout
        timeout = httpx2.Timeout(
            silence_seconds or seconds, connect=min(seconds, CONNECT_SECONDS), write=seconds, pool=None
        )
        own = dict(headers or {})
        if content is not None:
            own["Content-Type"] = "application/json"
        http = await self._http()
        with self._translated():
            request = http.build_request(
                method, self._address.url + path, content=content, headers=own, timeout=timeout
            )
            response = await http.send(request, stream=True)
        try:
            yield response
        except CorralError as error:
            self._hide_key(error)
            raise
        finally:
            await response.aclose()

    def _hide_key(self, error: CorralError) -> None:
        """Some servers repeat a key that they refuse."""
        if self._key is None:
            return
        found: BaseException | None = error
        while isinstance(found, CorralError):
            found.args = tuple(self._key.sub("…", one) if isinstance(one, str) else one for one in found.args)
            if isinstance(found, ResponseError):
                found.message = self._key.sub("…", found.message)
            found = found.__cause__

    async def _http(self) -> httpx2.AsyncClient:
        if self._is_closed:
            raise ConfigurationError(CLOSED)
        loop = asyncio.get_running_loop()
        with self._lock:
            found = self._by_loop.get(loop)
            if found is None:
                for other in [other for other in self._by_loop if other.is_closed()]:
                    self._by_loop.pop(other).forgotten.detach()
                keeper = self._kept(self._headers, self._address, self._transport)
                with _usable_environment():
                    # It runs to its yield without waiting for anything.
                    http = await anext(keeper)
                forgotten = weakref.finalize(self, _end_soon, loop, keeper)
                forgotten.atexit = False
                found = self._by_loop[loop] = _Connections(http, keeper, forgotten)
        return found.http

    @staticmethod
    async def _kept(
        headers: httpx2.Headers, address: Address, transport: httpx2.AsyncBaseTransport | None
    ) -> AsyncGenerator[httpx2.AsyncClient]:
        """The connections of one event loop. It is a generator, since a loop that ends closes its generators: so the
        connections end with the loop, whoever ran it.
        """
        http = httpx2.AsyncClient(
            headers=headers,
            auth=address.login,
            transport=transport,
            # Certificates are loaded where they are needed; that takes longer than everything else here.
            verify=address.url.startswith("https:"),
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=_KEPT_CONNECTIONS, keepalive_expiry=_KEPT_SECONDS
            ),
        )
        try:
            yield http
        finally:
            await http.aclose()

    async def _require_stream(self, response: httpx2.Response) -> None:
        if response.status_code != 200:
            with self._translated():
                await response.aread()
            require_success(response)
            raise not_ours(response)
        if response.headers.get("content-type", "").startswith("text/html"):
            with self._translated():
                await response.aread()
            raise not_ours(response)

    async def _events_of(self, response: httpx2.Response) -> AsyncIterator[Event]:
        with self._translated():
            async for event in _event_source(response):
                yield Event(event.event, event.data, event.id or None)

    async def _data_of(self, response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
        with self._translated():
            async for event in _event_source(response):
                if event.data == LAST_DATA:
                    return
                if event.data:
                    found = parsed(event.data)
                    yield found
                    if found.get("type") in LAST_TYPES:
                        return
            raise ConnectionFailedError("the stream ended without its last event")

    async def _lines_of(self, response: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
        with self._translated():
            async for line in lines(response.aiter_bytes()):
                yield parsed(line)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What the HTTP library raises, as our own errors."""
        where = self._address.url
        try:
            with _without_request():
                yield
        except CorralError:
            raise
        except (httpx2.ReadTimeout, httpx2.WriteTimeout) as error:
            raise CallTimeoutError(
                f"{where} said nothing for {self._settings.timeout:g} s: allow a longer timeout, or see why"
            ) from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            raise ConnectionFailedError(
                f"nobody answers at {where} ({_reason(error)}): start the server, or set CORRAL_URL"
            ) from error
        except httpx2.LocalProtocolError:
            # Its words may hold a header, and so the API key.
            raise ConfigurationError(f"this cannot be sent to {where}: HTTP does not allow it") from None
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, UnicodeError) as error:
            raise ConfigurationError(f"this cannot be sent to {where}: {error}") from error
        except (
            httpx2.TransportError,
            httpx2.DecodingError,
            httpx2.StreamError,
            OSError,
            ValueError,
            LookupError,
        ) as error:
            # The last two are of replies in an encoding that is none of text.
            raise ConnectionFailedError(
                f"the connection to {where} was lost before the reply was whole ({_reason(error)})"
            ) from error


@contextmanager
def _usable_environment() -> Iterator[None]:
    """Raises ConfigurationError, without the address of a proxy, which may hold a password."""
    try:
        yield
    except (ImportError, ValueError, OSError, httpx2.InvalidURL) as error:
        why = f": {error}" if isinstance(error, ImportError | OSError) else ""
        raise ConfigurationError(
            "no connection can be made with what HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE or SSL_CERT_DIR say "
            f"({type(error).__name__}{why}): mend or unset them"
        ) from None


def _event_source(response: httpx2.Response) -> httpx2.EventSource:
    # Events are UTF-8, whatever a header says (HTML standard, 9.2.5): the encoding that it names may be none of text.
    response.encoding = "utf-8"
    return httpx2.EventSource(response, max_event_size=None)


@contextmanager
def _without_request() -> Iterator[None]:
    """The library's errors hold the request, and so the API key: no cause that a caller prints or sends has it."""
    try:
        yield
    except httpx2.RequestError as error:
        found: BaseException | None = error
        while found is not None:
            if isinstance(found, httpx2.RequestError):
                found._request = None
            found = found.__cause__ or found.__context__
        raise


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
