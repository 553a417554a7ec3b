"""One server: which one it is, and how it is asked, again and again where that helps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from corral.call import Call
from corral.circuit import Attempt, Circuit
from corral.errors import (
    CallTimeoutError,
    ConnectionFailedError,
    CorralError,
    ResponseError,
    ServerError,
    StreamBrokenError,
)
from corral.logs import log
from corral.replies import require_default
from corral.retries import Retries, Time
from corral.settings import Settings
from corral.wire import Reply, Wire

T = TypeVar("T")
Kind = Literal["corral", "ollama"]

_AWAY = frozenset({502, 503, 504})
_PATIENCE_SECONDS = 7 * 86_400.0
"""For a reply that waits for its turn, while it is watched that the server lives."""
_SIGNS_OF_LIFE_SECONDS = 60.0
"""Within that time Corral says something in a stream, whatever its job waits for."""


def _as_it_is(reply: Any) -> Any:
    return reply


class Server:
    """Asks one server. Failures in passing are retried, and an attempt needs the circuit's leave."""

    def __init__(self, wire: Wire, settings: Settings, own_time: Time) -> None:
        self.wire = wire
        self.kind: Kind | None = None
        """Which it is, as far as is known."""
        self._was_away = True
        """It is to be asked again: there may be another one now."""
        self.settings = settings
        self.time = own_time
        self.circuit = Circuit(settings, lambda: own_time.clock())
        self.retries = Retries(settings, self.circuit, own_time)
        self._asking: dict[tuple[asyncio.AbstractEventLoop, bool], asyncio.Task[Kind | CorralError]] = {}
        self._default_model: str | None = None

    async def is_corral(self, call: Call, *, is_guarded: bool = True) -> bool:
        """Whether this call is one with Corral. It is asked before the first call, and again after the server was away.

        ``is_guarded``: asking needs the circuit's leave, and counts there. Raises AuthenticationError and
        PermissionDeniedError, and what other requests raise.
        """
        if call.is_corral is None:
            known = None if self._was_away else self.kind
            found = partial(self._find_out, call, is_guarded)
            kind = known or await self.retries.run(call, found, is_guarded=is_guarded)
            log.debug("[%s] who serves: %s", call.request_id, kind)
            call.is_corral = kind == "corral"
        return call.is_corral

    async def ask(
        self,
        call: Call,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        is_guarded: bool = True,
        is_queued: bool = False,
        check: Callable[[Any], Any] = _as_it_is,
    ) -> Any:
        """The JSON of a whole reply, as ``check`` returns it; what that raises counts as the reply's failure.

        ``is_queued``: the reply waits its turn at Corral, so that the server may be silent as long as it lives.
        """
        named = {"X-Request-ID": call.request_id, **(headers or {})}

        async def attempt() -> Any:
            with self._attempt(call, is_guarded=is_guarded):
                log.debug("[%s] attempt %d: %s %s", call.request_id, call.attempts, method, path)
                silence = _PATIENCE_SECONDS if is_queued else None
                reply = self.wire.request(method, path, content=content, headers=named, silence_seconds=silence)
                return check(await (self._watched(reply) if is_queued else reply))

        return await self.retries.run(call, attempt, is_guarded=is_guarded)

    async def reply(self, call: Call, path: str, content: bytes, headers: Mapping[str, str]) -> Reply:
        """A whole reply to one POST as it came, whatever its status is. Nothing is tried again, and nothing counts."""
        named = {"X-Request-ID": call.request_id, **headers}
        reply = self.wire.reply(path, content, named, _PATIENCE_SECONDS if call.is_corral else None)
        return await (self._watched(reply) if call.is_corral else reply)

    async def opened(
        self,
        call: Call,
        path: str,
        content: bytes,
        headers: Mapping[str, str],
        shape: Callable[[dict[str, Any]], T | None],
        text_of: Callable[[T], str],
        *,
        is_done: Callable[[dict[str, Any]], bool] | None,
    ) -> Stream[T]:
        """A streamed reply of which the first item has come; it is to be closed. Before that, failures are retried.

        ``shape`` makes an item of an object, or None of one that is not to be seen. ``is_done`` knows the last object,
        without which a stream is broken; None: it simply ends.
        """
        named = {"X-Request-ID": call.request_id, **headers}
        silence = max(self.settings.timeout, _SIGNS_OF_LIFE_SECONDS) if call.is_corral else None

        async def attempt() -> Stream[T]:
            leave = self.circuit.begin(call.request_id)
            log.debug("[%s] attempt %d: POST %s, streamed", call.request_id, call.attempts, path)
            async with AsyncExitStack() as stack:
                stack.push_async_exit(self._teller(leave))
                objects = await stack.enter_async_context(self.wire.objects(path, content, named, silence))
                stream = Stream(objects, shape, text_of, is_done)
                await (self._watched(stream.begin()) if call.is_corral else stream.begin())
                stream.keep(stack.pop_all())
                return stream
            raise AssertionError("an exit never swallows an error")

        return await self.retries.run(call, attempt)

    async def corrals_model(self, call: Call) -> str:
        """The model that Corral asks when none is named."""
        if self._default_model is None:
            found = await self.ask(call, "GET", "/api/models", check=require_default)
            self._default_model = str(found["default"])
        return self._default_model

    def begin_anew(self) -> None:
        """Forget what belongs to another process."""
        self.circuit = Circuit(self.settings, lambda: self.time.clock())
        self.retries = Retries(self.settings, self.circuit, self.time)
        self._asking = {}

    @contextmanager
    def _attempt(self, call: Call, *, is_guarded: bool) -> Iterator[None]:
        leave = self.circuit.begin(call.request_id) if is_guarded else None
        try:
            yield
        except BaseException as error:
            self._tell(leave, error)
            raise
        if leave is not None:
            leave.succeeded()

    def _teller(self, leave: Attempt) -> Callable[..., Awaitable[bool]]:
        async def tell(_kind: object, error: BaseException | None, _trace: object) -> bool:
            if error is None:
                leave.succeeded()
            else:
                self._tell(leave, error)
            return False

        return tell

    def _tell(self, leave: Attempt | None, error: BaseException) -> None:
        if leave is not None:
            leave.ended_by(error)
        is_away = isinstance(error, ResponseError) and error.status_code in _AWAY
        if is_away or isinstance(error, ConnectionFailedError | CallTimeoutError):
            self._was_away = True

    async def _find_out(self, call: Call, is_guarded: bool) -> Kind:
        """Ask which server it is, once for all that want to know it now: the circuit learns of it once, too."""
        loop = asyncio.get_running_loop()
        place = (loop, is_guarded)
        task = self._asking.get(place)
        if task is None:
            leave = self.circuit.begin(call.request_id) if is_guarded else None
            task = self._asking[place] = loop.create_task(self._look(leave))

            def end(_: object) -> None:
                self._asking.pop(place, None)
                # Of a task that was cancelled, be it before its first step.
                if leave is not None:
                    leave.decided_nothing()

            task.add_done_callback(end)
        elif is_guarded and not self.circuit.is_closed:
            self.circuit.begin(call.request_id).decided_nothing()
        found = await asyncio.shield(task)
        if isinstance(found, CorralError):
            raise found.again()
        return found

    async def _look(self, leave: Attempt | None) -> Kind | CorralError:
        try:
            status, body = await self.wire.health()
            if isinstance(body, dict) and body.get("service") == "corral":
                self.kind = "corral"
            elif status in (401, 403):
                raise self.wire.refusal(status, body)
            elif status in _AWAY:
                # Neither Corral nor Ollama answers so: a proxy does, whose server is away.
                raise self.wire.away(status)
            else:
                self.kind = "ollama"
        except CorralError as error:
            self._tell(leave, error)
            return error
        # That it answers here says nothing of its models.
        if leave is not None:
            leave.decided_nothing()
        self._was_away = False
        # One that comes back may have been started with another.
        self._default_model = None
        return self.kind

    async def _watched(self, reply: Awaitable[T]) -> T:
        """Wait for a reply that may take any time, as long as the server lives. Raises what looking for it raises."""
        waiting = asyncio.ensure_future(reply)
        try:
            while not (await asyncio.wait((waiting,), timeout=self.settings.timeout))[0]:
                await self.wire.health()
            return waiting.result()
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.wait((waiting,))


class Stream(Generic[T]):
    """The items of a streamed reply. One that breaks off raises StreamBrokenError, with the text that had come."""

    def __init__(
        self,
        objects: AsyncIterator[dict[str, Any]],
        shape: Callable[[dict[str, Any]], T | None],
        text_of: Callable[[T], str],
        is_done: Callable[[dict[str, Any]], bool] | None,
    ) -> None:
        self._objects = objects
        self._shape = shape
        self._text_of = text_of
        self._is_last = is_done
        self._is_over = False
        self._text: list[str] = []
        self._first: T | None = None
        self._stack = AsyncExitStack()

    async def begin(self) -> None:
        """Wait for the first item."""
        self._first = await self._next()
        if self._first is None and self._is_last is not None:
            raise StreamBrokenError("the stream ended before anything came")

    def keep(self, stack: AsyncExitStack) -> None:
        """What is to be closed with it."""
        self._stack = stack

    async def items(self) -> AsyncGenerator[T]:
        """All of them, and the end of the connection afterwards."""
        async with self._stack:
            item = self._first
            while item is not None:
                self._text.append(self._text_of(item))
                yield item
                try:
                    item = await self._next()
                except (ConnectionFailedError, CallTimeoutError, ResponseError) as error:
                    text = "".join(self._text)
                    words = f"the stream broke off after {len(text)} characters: {error}"
                    raise StreamBrokenError(words, text) from error
                if item is None and self._is_last is not None and not self._is_over:
                    raise StreamBrokenError("the stream ended before its answer was whole", "".join(self._text))

    async def _next(self) -> T | None:
        if self._is_over:
            return None
        async for found in self._objects:
            if found.get("error") and "done" not in found:
                words = found["error"]
                message = words.get("message") if isinstance(words, dict) else words
                raise ServerError(str(message), 500)
            self._is_over = self._is_last is not None and self._is_last(found)
            item = self._shape(found)
            if item is not None:
                return item
            if self._is_over:
                break
        return None
