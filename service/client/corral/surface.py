"""What both clients are made of, and the attributes that both have."""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar, overload

import httpx2

from corral.asking import Asking
from corral.call import Call, marking, new_call
from corral.errors import ConfigurationError
from corral.logs import show_if_asked
from corral.places import HIGH, LOW, NORMAL, Places, rank_of
from corral.prompts import Prompts
from corral.requests import Request, chat_request, chosen_model, generate_request
from corral.retries import Time
from corral.server import Kind, Server
from corral.settings import (
    OLLAMAS_MODEL,
    Settings,
    checked_headers,
    checked_mapping,
    find_address,
    find_key,
    find_model,
)
from corral.shapes import Priority, UsageStats
from corral.stats import Stats
from corral.under_way import UnderWay
from corral.wire import CLOSED, Wire

T = TypeVar("T")

ENDPOINT_TYPES = ("chat", "stream_chat", "generate", "completions", "embed")
TEST_PROMPT = "Testing the Ollama API. Please respond with a short message."

END: Any = object()
"""Behind the last item of a map."""

_LIVING: weakref.WeakSet[Parts] = weakref.WeakSet()


class Parts:
    """The parts of one client."""

    def __init__(
        self,
        base_url: str | None,
        api_key: str | None,
        model: str | None,
        timeout: float | None,
        headers: Mapping[str, str] | None,
        metadata: Mapping[str, Any] | None,
        resources: Mapping[str, Any] | None,
        transport: httpx2.AsyncBaseTransport | None,
    ) -> None:
        self.metadata = checked_mapping("metadata", metadata)
        self.resources = checked_mapping("resources", resources)
        own_headers = checked_headers(headers)
        self.address = find_address(base_url, self.metadata)
        self.settings = Settings(self._look_again)
        self.places = Places(self.settings)
        self.settings.take(
            self.metadata,
            timeout=timeout,
            queue_size=None,
            max_concurrent_requests=None,
            default_model=find_model(model, self.metadata),
        )
        self.stats = Stats()
        self.time = Time()
        key = find_key(api_key, self.metadata)
        if key is not None and any(name.lower() == "authorization" for name in own_headers):
            raise ConfigurationError("headers: Authorization and an API key (api_key, CORRAL_KEY): give one of them")
        wire = Wire(self.address, key, own_headers, self.settings, transport)
        self.server = Server(wire, self.settings, self.time)
        self.prompts = Prompts(self.server, self.stats)
        self.under_way = UnderWay()
        self.asking = Asking(self.server, self.prompts, self.places, self.stats, self.under_way)
        self.is_closed = False
        _LIVING.add(self)
        show_if_asked()

    def require_open(self) -> None:
        """Raises ConfigurationError once the client is closed."""
        if self.is_closed:
            raise ConfigurationError(CLOSED)

    @asynccontextmanager
    async def asking_as(self, call: Call) -> AsyncIterator[None]:
        """Ask for this call, until the client is closed. Errors tell which call they ended."""
        with marking(call):
            async with self.under_way.waiting():
                yield

    async def aclose(self) -> None:
        """End what is under way in this loop, and close its connections; nothing can be asked any more."""
        self.is_closed = True
        await self.under_way.aclose()
        await self.server.wire.aclose()

    def begin_anew(self) -> None:
        """Go on in a process that was forked: what was under way is the parent's."""
        self.under_way.begin_anew()
        self.places.begin_anew()
        self.stats.begin_anew()
        self.server.begin_anew()
        self.server.wire.begin_anew()

    def _look_again(self) -> None:
        if hasattr(self, "places"):
            self.places.look_again()


def _begin_anew() -> None:
    for parts in list(_LIVING):
        parts.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


class _Setting(Generic[T]):
    """An attribute that stands in the client's settings, which check what is assigned."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> _Setting[T]: ...
    @overload
    def __get__(self, instance: Surface, owner: type) -> T: ...
    def __get__(self, instance: Surface | None, owner: type) -> _Setting[T] | T:
        if instance is None:
            return self
        value: T = getattr(instance._parts.settings, self._name)
        return value

    def __set__(self, instance: Surface, value: T) -> None:
        setattr(instance._parts.settings, self._name, value)


class Surface:
    """The attributes of a client. Those that may be assigned hold from the next decision on; a value that makes no
    sense raises ConfigurationError.
    """

    PRIORITY_HIGH, PRIORITY_NORMAL, PRIORITY_LOW = HIGH, NORMAL, LOW

    max_concurrent_requests: _Setting[int] = _Setting()
    """How many calls are under way at most."""
    queue_size: _Setting[int] = _Setting()
    """How many more may wait."""
    max_retries: _Setting[int] = _Setting()
    initial_retry_delay: _Setting[float] = _Setting()
    """Seconds."""
    backoff_factor: _Setting[float] = _Setting()
    max_retry_delay: _Setting[float] = _Setting()
    """Seconds."""
    failure_threshold: _Setting[int] = _Setting()
    """Failures in a row that open the circuit."""
    circuit_timeout: _Setting[float] = _Setting()
    """Seconds for which it stays open."""
    timeout: _Setting[float] = _Setting()
    """Seconds without a byte of the server."""
    default_model: _Setting[str | None] = _Setting()
    """For calls that name none; None: the server's own."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._parts.address.url

    @property
    def ollama_api_url(self) -> str:
        """The address of Ollama's API there."""
        return f"{self.base_url}/api"

    @property
    def metadata(self) -> dict[str, Any]:
        """As given."""
        return self._parts.metadata

    @property
    def resources(self) -> dict[str, Any]:
        """As given."""
        return self._parts.resources

    @property
    def server(self) -> Kind | None:
        """Which server it is; None while nobody has answered."""
        return self._parts.server.kind

    @property
    def usage_stats(self) -> UsageStats:
        """A copy of what was counted."""
        return self._parts.stats.copy()

    @property
    def circuit_state(self) -> str:
        """CLOSED, OPEN or HALF-OPEN."""
        return self._parts.server.circuit.state

    @property
    def failure_count(self) -> int:
        """Failures in a row."""
        return self._parts.server.circuit.failures

    @property
    def active_requests(self) -> int:
        """Calls under way."""
        return self._parts.places.active

    @property
    def queued_requests(self) -> int:
        """Calls that wait for a place."""
        return self._parts.places.queued

    def reset_usage_stats(self) -> None:
        """Count from 0 again."""
        self._parts.stats.reset()

    def _model_of(self, model: str | None) -> str | None:
        return chosen_model(None, model) or self.default_model

    def _new_call(self, request_id: str | None, priority: Priority = None) -> Call:
        self._parts.require_open()
        return new_call(request_id, rank=rank_of(priority))

    def _call_for(self, asked: Request, request_id: str | None) -> Call:
        self._parts.require_open()
        wishes = asked.wishes
        return new_call(
            request_id,
            rank=wishes.rank,
            max_wait_seconds=wishes.max_wait_seconds,
            idempotency_key=wishes.idempotency_key,
        )

    def _require_own(self, endpoint_url: str | None) -> None:
        """Raises ConfigurationError for another server's address."""
        given: object = endpoint_url
        is_path = isinstance(given, str) and given.startswith("/")
        if endpoint_url is not None and not is_path and find_address(endpoint_url, {}).url != self.base_url:
            self._parts.address.path_of(endpoint_url)

    def _item_request(self, item: str | Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[Request, str | None]:
        """An item of a map, as its call is asked."""
        if not isinstance(item, str | Mapping):
            raise ConfigurationError(f"an item of map is {item!r}: give a prompt, or a dict of keywords")
        given = {**shared, **({"prompt": item} if isinstance(item, str) else item)}
        request_id = given.pop("request_id", None)
        model = self._model_of(chosen_model(given.pop("model_name", None), given.pop("model", None)))
        max_tokens, temperature = given.pop("max_tokens", None), given.pop("temperature", None)
        messages, prompt = given.pop("messages", None), given.pop("prompt", None)
        if (messages is None) == (prompt is None):
            raise ConfigurationError("prompt, messages: each item of a map needs one of them")
        if messages is None:
            return generate_request(model, prompt, max_tokens, temperature, given), request_id
        options = given.pop("options", None)
        return chat_request(model, messages, max_tokens, temperature, options, given), request_id

    def _has_own_post(self, base: type) -> bool:
        """Whether a subclass, or an assignment, has taken ``make_post_request_ollama`` over, through which all answers
        then go.
        """
        post = self.make_post_request_ollama  # type: ignore[attr-defined]
        return getattr(post, "__func__", post) is not base.make_post_request_ollama  # type: ignore[attr-defined]

    def _own_post(self, asked: Request, *, is_streamed: bool) -> tuple[str, dict[str, Any]]:
        """Address and body of such a request."""
        body = asked.native_body(asked.model or OLLAMAS_MODEL, is_streamed=is_streamed)
        return self.base_url + asked.endpoint, body


def parts_of(client: Surface) -> Parts:
    """The parts of a client, for the command line and the batch runner, which do more with them than programs may."""
    return client._parts


class Items(Generic[T]):
    """The input of a map. What it raises comes after the answers to all that it gave before."""

    def __init__(self, prompts: Iterable[T]) -> None:
        """Raises ConfigurationError for what has no items."""
        given: Any = prompts
        if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
            raise ConfigurationError(f"prompts = {given!r}: give a list of prompts")
        self._items = iter(prompts)
        self._failure: Exception | None = None

    def take(self) -> Any:
        """The next one, or END."""
        if self._failure is not None:
            return END
        try:
            return next(self._items, END)
        except Exception as error:
            self._failure = error
            return END

    def end(self) -> None:
        """Raises what the input has raised."""
        if self._failure is not None:
            raise self._failure


def require_in_flight(in_flight: Any) -> None:
    """Raises ConfigurationError."""
    if isinstance(in_flight, bool) or not isinstance(in_flight, int) or in_flight < 1:
        raise ConfigurationError(f"in_flight = {in_flight!r}: give a whole number of at least 1")
