"""What a client has under way. It ends in order, whoever ends the client or its event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial, wraps
from typing import Any, Generic, NamedTuple, TypeVar, cast

from corral.errors import ConfigurationError, CorralError
from corral.logs import log
from corral.wire import CLOSED

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., AsyncGenerator[Any]])

_END_SECONDS = 2.5
"""For all that is ended together: a little longer than calling off a job may take."""

_OF_PARENTS: list[object] = []
"""What is under way in the process that this one was forked from. It is never touched."""


class _Wait(NamedTuple):
    """A task that waits for the server."""

    task: asyncio.Task[Any] | None
    limit: asyncio.Timeout
    ended: asyncio.Future[None]


class UnderWay:
    """The calls that wait for the server, and the streams that have begun and not ended."""

    def __init__(self) -> None:
        self._waits: set[_Wait] = set()
        self._guards: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """A block that is ended with ConfigurationError when the client is closed."""
        try:
            async with asyncio.timeout(None) as limit:
                ended = asyncio.get_running_loop().create_future()
                wait = _Wait(asyncio.current_task(), limit, ended)
                self._waits.add(wait)
                try:
                    yield
                finally:
                    self._waits.discard(wait)
                    ended.set_result(None)
        except TimeoutError:
            if limit.expired():
                raise ConfigurationError(CLOSED) from None
            raise

    def stream(self, source: AsyncGenerator[T]) -> AsyncStream[T]:
        """The same items, as a stream that ends in order."""
        return AsyncStream(self, source)

    def keep(self, guard: asyncio.Task[None]) -> None:
        """End this together with everything else. It ends what it guards when it is cancelled."""
        self._guards.add(guard)
        guard.add_done_callback(self._guards.discard)

    async def aclose(self) -> None:
        """End all that is under way in the running loop at the same time, and wait a little until it has ended."""
        loop = asyncio.get_running_loop()
        ending: set[asyncio.Future[None]] = set()
        for wait in list(self._waits):
            if wait.ended.get_loop() is loop and wait.task is not asyncio.current_task():
                ending.add(wait.ended)
                if not wait.limit.expired():
                    wait.limit.reschedule(loop.time())
        for guard in list(self._guards):
            if guard.get_loop() is loop:
                ending.add(guard)
                guard.cancel()
        if ending:
            await asyncio.wait(ending, timeout=_END_SECONDS)

    def begin_anew(self) -> None:
        """Leave all to the process that this one was forked from."""
        _OF_PARENTS.append((self._waits, self._guards))
        self._waits, self._guards = set(), set()


class _Open:
    """How a stream stands that has begun. Its guard knows this and not the stream, which may become garbage."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.process = os.getpid()
        self.left = asyncio.Event()
        """Nobody will ask for another item."""
        self.is_asked = False
        """Somebody waits for an item. Whoever ends that, ends the stream."""
        self.is_over = False
        """Nothing is left to be closed."""
        self.is_ended = False
        """With its loop or its client."""
        self.guard: asyncio.Task[None] | None = None

    def end(self) -> None:
        self.is_over = True
        self.left.set()


class AsyncStream(AsyncGenerator[T, None], Generic[T]):
    """What an asynchronous generator yields. Closed, garbage, or open when its client or its loop ends: it is closed.

    A loop that ends closes its generators all at once, each of a chain beside the one that closes it; and one that is
    garbage by then is cancelled where it had begun to close. But first it cancels tasks, and waits for them. So each
    stream has one, its guard, which closes the generator.
    """

    def __init__(self, under_way: UnderWay, source: AsyncGenerator[T]) -> None:
        self._under_way = under_way
        self._source = source
        self._open: _Open | None = None

    async def asend(self, value: None) -> T:
        """The next item."""
        return await self._asked(partial(self._source.asend, value))

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None) -> T:
        """What the generator yields after this error."""
        return await self._asked(partial(self._source.athrow, typ, val, tb))

    async def aclose(self) -> None:
        """End it, and wait until it has ended; nothing happens when it has."""
        now = self._open
        if now is None:
            await self._source.aclose()
            return
        _require_alone(now)
        now.left.set()
        if now.guard is not None:
            # It goes on when this is cancelled.
            await asyncio.shield(now.guard)

    def __del__(self) -> None:
        # Whoever collects garbage must not wait, and may be any thread.
        now = self._open
        if now is None or now.is_over:
            return
        if now.process != os.getpid():
            # Its loop would be told by a socket that both processes have.
            _OF_PARENTS.append(now)
            return
        try:
            now.loop.call_soon_threadsafe(now.left.set)
        except RuntimeError:
            # The loop is closed.
            return

    async def _asked(self, step: Callable[[], Awaitable[T]]) -> T:
        is_new = self._open is None
        now = self._open = self._open or _Open()
        _require_alone(now)
        if now.is_ended:
            raise ConfigurationError("this stream has ended with its client or its event loop: ask anew")
        now.is_asked = True
        try:
            async with self._under_way.waiting():
                if is_new:
                    await self._guarded(now)
                return await step()
        except BaseException:
            now.end()
            raise
        finally:
            now.is_asked = False

    async def _guarded(self, now: _Open) -> None:
        guard = now.guard = asyncio.create_task(_guard(self._source, now))
        # A loop that is closed without cancelling its tasks would complain.
        guard._log_destroy_pending = False  # type: ignore[attr-defined]
        self._under_way.keep(guard)
        # A task that is cancelled before its first step never runs.
        await asyncio.sleep(0)


def _require_alone(now: _Open) -> None:
    if now.is_asked:
        raise RuntimeError("the stream is being read already: cancel the task that does it")


async def _guard(source: AsyncGenerator[Any], now: _Open) -> None:
    # It is cancelled when the loop ends, or the client.
    with suppress(asyncio.CancelledError):
        await now.left.wait()
    if now.is_over or now.is_asked:
        return
    now.is_ended = not now.left.is_set()
    try:
        await source.aclose()
    except CorralError as error:
        log.debug("[%s] closing a stream failed: %s", error.request_id, error)
    finally:
        now.is_over = True


def streamed(method: Method) -> Method:
    """Have an asynchronous generator of a client's, or of a job's, end in order."""

    @wraps(method)
    def stream(self: Any, *arguments: Any, **keywords: Any) -> AsyncGenerator[Any]:
        under_way: UnderWay = self._parts.under_way
        return under_way.stream(method(self, *arguments, **keywords))

    return cast(Method, stream)
