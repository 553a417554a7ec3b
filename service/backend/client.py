"""One Ollama server: calls with their time limits, and the quick questions."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from typing import Any, TypeVar

from pydantic_core import from_json, to_json
from yarl import URL

from service.backend.classification import failure_of
from service.backend.http.call import Body, Call, Reply, not_ollama
from service.backend.http.connections import Connections, Origin
from service.backend.http.deadlines import Deadlines, Patience
from service.backend.http.headers import base_headers, request_head, with_callers
from service.backend.models import InstalledModel, LoadedModel, installed_models, loaded_models, weights_of
from service.errors import InvalidRequestError
from service.json_bounds import check_bounds

__all__ = ["BackendClient", "Call", "Deadlines", "InstalledModel", "LoadedModel", "Reply"]

_QUICK_SECONDS = 5.0
_MOST_HEADS = 64

Understood = TypeVar("Understood")


class BackendClient:
    """Talks to one Ollama server. ``url`` may have a path and credentials; ``headers`` are added to every request."""

    def __init__(
        self,
        connections: Connections,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        name: str = "",
        quick_seconds: float = _QUICK_SECONDS,
    ) -> None:
        base = URL(url.rstrip("/"))
        self.url = str(base.with_user(None))
        self.name = name or self.url
        """What messages call it."""
        self._configured = dict(headers or {})
        self._headers = base_headers(base, self._configured)
        self._connections = connections
        self._origin = Origin(base.raw_host or "", base.port or 80, base.scheme == "https")
        self._host = base.host_port_subcomponent or ""
        self._path = base.raw_path.rstrip("/")
        self._quick = Deadlines(connect=quick_seconds, first_byte=None, stall=None, attempt=quick_seconds)
        self._heads: dict[tuple[str, str], bytes] = {}

    def call(
        self,
        endpoint: str,
        body: Body,
        limits: Deadlines,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        patience: Patience | None = None,
        content_type: str | None = None,
    ) -> Call:
        """Send a request, to be used as ``async with client.call(…) as reply``. ``headers`` are the caller's;
        ``patience`` decides how long the first byte may take, in place of the limits; ``content_type`` is the body's
        where that is not JSON.

        Entering raises BackendError when no head of a reply came; leaving early closes the connection, which is how
        Ollama is told to stop. The reply's status is for the caller to judge.
        """
        if content_type is not None:
            headers = {**(headers or {}), "Content-Type": content_type}
        head = self._heads.get((method, endpoint)) if headers is None else None
        if head is None:
            # A body that is passed on while it comes was not unpacked.
            is_as_it_came = isinstance(body, AsyncIterable)
            head = self._head(method, endpoint, headers, is_as_it_came=is_as_it_came)
        return Call(self._connections, self._origin, self.name, head, body, limits, patience)

    async def version(self) -> str:
        """What ``/api/version`` says."""
        version = (await self._ask("/api/version")).get("version")
        if not isinstance(version, str) or not version:
            raise not_ollama(self.name, "no version")
        return version

    async def tags(self) -> tuple[InstalledModel, ...]:
        """The models that are installed."""
        return _understood(self.name, installed_models, await self._ask("/api/tags"))

    async def ps(self) -> tuple[LoadedModel, ...]:
        """The models that are loaded. One that is being loaded is not among them (wire contract 4.5)."""
        return _understood(self.name, loaded_models, await self._ask("/api/ps"))

    async def weights(self, model: str) -> str | None:
        """What this model's runner is made of, see :func:`service.backend.models.weights_of`."""
        request = to_json({"model": model})
        async with self.call("/api/show", request, self._quick.for_whole_reply()) as reply:
            return weights_of(await self._object(reply, "/api/show"))

    async def unload(self, model: str) -> None:
        """Ask for a model to be unloaded as soon as its running requests are done. Never loads it; answers at once."""
        request = to_json({"model": model, "keep_alive": 0, "stream": False})
        async with self.call("/api/generate", request, self._quick.for_whole_reply()) as reply:
            await _body(reply, "/api/generate")

    async def _ask(self, endpoint: str) -> dict[str, Any]:
        async with self.call(endpoint, None, self._quick, method="GET") as reply:
            return await self._object(reply, endpoint)

    async def _object(self, reply: Reply, endpoint: str) -> dict[str, Any]:
        body = await _body(reply, endpoint)
        try:
            await check_bounds(body)
        except InvalidRequestError as problem:
            raise reply.too_large(str(problem).replace("the body", "that", 1)) from None
        try:
            answer = from_json(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise not_ollama(self.name, f"something that is not JSON to {endpoint}")
        return answer

    def _head(
        self, method: str, endpoint: str, callers: Mapping[str, str] | None, *, is_as_it_came: bool = False
    ) -> bytes:
        sent = (
            self._headers
            if callers is None
            else with_callers(self._headers, self._configured, callers, is_as_it_came=is_as_it_came)
        )
        head = request_head(method, self._path + endpoint, self._host, sent)
        if callers is None and len(self._heads) < _MOST_HEADS:
            self._heads[method, endpoint] = head
        return head


async def _body(reply: Reply, endpoint: str) -> bytes:
    body = await reply.read()
    if reply.status != 200:
        raise failure_of(reply.status, body, reply.content_type, endpoint)
    return body


def _understood(name: str, understand: Callable[[dict[str, Any]], Understood], answer: dict[str, Any]) -> Understood:
    try:
        return understand(answer)
    except ValueError as problem:
        raise not_ollama(name, str(problem)) from problem
