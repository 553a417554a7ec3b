"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from anyio.from_thread import BlockingPortal

from corral.errors import ConfigurationError
from corral.wire import CLOSED

T = TypeVar("T")

_END_SECONDS = 3.5
"""For what is under way when it is called off: a little longer than calling off jobs and closing connections take."""

_CLOSE_SECONDS = 0.5
"""For closing connections."""

_LIVING: weakref.WeakSet[Portal] = weakref.WeakSet()
_OF_PARENTS: list[object] = []
"""What belongs to the process that this one was forked from, whose threads are not here. It is never touched."""


@dataclass(frozen=True)
class Started(Generic[T]):
    """Something that runs in the loop."""

    future: concurrent.futures.Future[T]
    ended: threading.Event
    """It has ended in truth: a future that is cancelled looks so at once."""
    process: int = field(default_factory=os.getpid)
    """Whose loop that is. A process that was forked has no part in it."""


def _require_own(process: int) -> None:
    if process != os.getpid():
        raise ConfigurationError("this was begun before a fork and is the parent process's: ask anew")


class Portal:
    """Runs coroutines in its loop, which begins with the first of them. Any thread may ask it.

    ``closing`` ends in the loop what is under way there, before everything else is ended.
    """

    def __init__(self, closing: Callable[[], Awaitable[None]]) -> None:
        self._closing = closing
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running: BlockingPortal | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._forgotten: weakref.finalize[Any, Any] | None = None
        """Ends the thread when a client is dropped that nobody has closed."""
        _LIVING.add(self)

    def call(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Wait for what the coroutine returns. Whatever ends the waiting, as Ctrl-C does, ends the coroutine first."""
        return self.outcome(self.start(function, *arguments))

    def outcome(self, started: Started[T], *others: Started[Any]) -> T:
        """The same for what was begun already. Others end together with it."""
        _require_own(started.process)
        try:
            return started.future.result()
        except concurrent.futures.CancelledError:
            raise ConfigurationError(CLOSED) from None
        except BaseException:
            if not started.future.done():
                self.call_off((started, *others))
            raise

    def call_off(self, begun: Iterable[Started[Any]]) -> None:
        """End all of them, and wait a little until they have."""
        begun = [one for one in begun if one.process == os.getpid() and not one.future.done()]
        for one in begun:
            one.future.cancel()
        deadline = time.monotonic() + _END_SECONDS
        for one in begun:
            if not self.is_here:
                one.ended.wait(max(0.0, deadline - time.monotonic()))

    def start(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> Started[T]:
        """Begin a coroutine. Cancelling its future ends it."""
        ended = threading.Event()

        async def watched(_kept: Portal = self) -> T:
            # Who waits for it may have dropped the client, which as garbage would call it off.
            try:
                return await function(*arguments)
            finally:
                ended.set()

        if self.is_here:
            raise ConfigurationError("a callback in the client's own thread cannot wait for it: use another thread")
        running = self._begun()
        try:
            return Started(running.start_task_soon(watched), ended)
        except RuntimeError:
            raise ConfigurationError(CLOSED) from None

    @property
    def is_running(self) -> bool:
        return self._running is not None

    @property
    def is_here(self) -> bool:
        """Whether the running thread is the loop's own, which cannot wait for itself."""
        return self._thread is threading.current_thread()

    def stop(self) -> None:
        """Call off all that is under way, and begin nothing new."""
        with self._lock:
            self._is_closed = True
            running, self._running = self._running, None
        if running is not None:
            try:
                running.start_task_soon(_end, running, self._closing)
            except RuntimeError:
                # It has ended already.
                return

    def join(self, deadline: float | None = None) -> None:
        """Wait until it has ended, at most until ``time.monotonic()`` passes the deadline."""
        thread = self._thread
        if thread is not None and not self.is_here:
            thread.join(_END_SECONDS if deadline is None else max(0.0, deadline - time.monotonic()))

    def begin_anew(self) -> None:
        """Forget a thread that only the parent process has."""
        _OF_PARENTS.append((self._running, self._thread, self._loop))
        if self._forgotten is not None:
            self._forgotten.detach()
        self._lock, self._thread, self._running, self._loop = threading.Lock(), None, None, None

    def _begun(self) -> BlockingPortal:
        with self._lock:
            if self._is_closed:
                raise ConfigurationError(CLOSED)
            if self._running is None:
                ready: _Ready = concurrent.futures.Future()
                self._thread = threading.Thread(target=_run, args=(ready,), name="corral", daemon=True)
                self._thread.start()
                self._running, self._loop = ready.result()
                self._forgotten = weakref.finalize(self, _end_soon, self._running, self._loop, self._closing)
                self._forgotten.atexit = False
            return self._running


_Ready = concurrent.futures.Future[tuple[BlockingPortal, asyncio.AbstractEventLoop]]


class _DaemonThreads(concurrent.futures.ThreadPoolExecutor):
    """For looking up addresses, which nobody can break off. An exit waits for the threads of every other executor."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, name="corral: address", daemon=True).start()
        return future


def _run(ready: _Ready) -> None:
    async def serve() -> None:
        asyncio.get_running_loop().set_default_executor(_DaemonThreads())
        async with BlockingPortal() as portal:
            ready.set_result((portal, asyncio.get_running_loop()))
            await portal.sleep_until_stopped()
        # Connections that are being closed, for example.
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=_CLOSE_SECONDS)

    try:
        asyncio.run(serve())
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)


async def _end(running: BlockingPortal, closing: Callable[[], Awaitable[None]]) -> None:
    try:
        await closing()
    finally:
        await running.stop(cancel_remaining=True)


def _end_soon(running: BlockingPortal, loop: asyncio.AbstractEventLoop, closing: Callable[[], Awaitable[None]]) -> None:
    if not loop.is_closed():
        asyncio.run_coroutine_threadsafe(_end(running, closing), loop)


def _end_all() -> None:
    portals = list(_LIVING)
    for portal in portals:
        portal.stop()
    deadline = time.monotonic() + _END_SECONDS
    for portal in portals:
        portal.join(deadline)


def _at_exit(function: Callable[[], None]) -> None:
    """Have this called when the main thread has come to its end, before other threads are waited for.

    Exit handlers proper come too late: a thread that waits for an answer would keep the interpreter from getting there.
    Pools of threads end themselves at the same place, whoever registered last first; so their module is loaded above.
    """
    register = getattr(threading, "_register_atexit", atexit.register)
    register(function)


_at_exit(_end_all)


def _begin_anew() -> None:
    for portal in list(_LIVING):
        portal.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


class SyncStream(Generic[T]):
    """What an asynchronous stream yields, one by one. One that is closed, or garbage, ends that stream, too.

    Another thread than its reader's may close it: the reader gets ConfigurationError, since its answer is not whole.
    """

    def __init__(self, portal: Portal, source: AsyncGenerator[T]) -> None:
        self._portal = portal
        self._source = source
        self._process = os.getpid()
        self._is_begun = False
        self._is_over = False
        self._is_closed = False
        # A signal's handler may close it, in the thread that reads.
        self._lock = threading.RLock()
        self._reading: Started[T] | None = None

    def __iter__(self) -> SyncStream[T]:
        return self

    def __next__(self) -> T:
        if self._is_begun:
            _require_own(self._process)
        with self._lock:
            if self._is_over:
                raise StopIteration
            if self._is_read:
                raise RuntimeError("the stream is being read already: let one thread do it")
            self._process, self._is_begun = os.getpid(), True
            reading = self._reading = self._begun()
        try:
            return self._portal.outcome(reading)
        except StopAsyncIteration:
            self._is_over = True
            raise StopIteration from None
        except BaseException:
            self._is_over = True
            if self._is_closed and reading.future.cancelled():
                raise ConfigurationError("the stream was closed while it was read") from None
            raise

    def __enter__(self) -> SyncStream[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; nothing happens when it has ended."""
        if self._process != os.getpid():
            self._is_over = True
            return
        with self._lock:
            is_open, self._is_over = self._is_begun and not self._is_over, True
            reading = self._reading if self._is_read else None
            self._is_closed = True
        if reading is not None:
            self._portal.call_off((reading,))
        elif is_open and self._portal.is_running:
            self._portal.call(self._source.aclose)

    @property
    def _is_read(self) -> bool:
        return self._reading is not None and not self._reading.future.done()

    def _begun(self) -> Started[T]:
        try:
            return self._portal.start(self._source.__anext__)
        except BaseException:
            self._is_over = True
            raise
