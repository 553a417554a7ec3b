"""One question to several backends in turn: one that hangs holds nobody up, and one that is only slow may still win."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

from service.backend.http.call import Call, Reply
from service.errors import BackendError


@asynccontextmanager
async def first_answer(
    calls: Sequence[Call], patience_seconds: float, is_answer: Callable[[Reply], bool]
) -> AsyncIterator[Reply]:
    """The first reply that ``is_answer``, else the first of all. The next call is made when those before it have been
    silent for so long, have failed, or gave no answer; what was begun goes on until there is an answer.

    Raises BackendError when nobody replies.
    """
    left = deque(calls)
    asking: dict[asyncio.Task[Reply], Call] = {}
    replied: list[tuple[Call, Reply]] = []
    failures: list[BackendError] = []
    try:
        found: Reply | None = None
        while found is None and (left or asking):
            if left:
                call = left.popleft()
                asking[asyncio.create_task(call.__aenter__())] = call
            done, _ = await asyncio.wait(
                asking, timeout=patience_seconds if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                try:
                    replied.append((asking.pop(task), task.result()))
                except BackendError as error:
                    failures.append(error)
            found = next((reply for _, reply in replied if is_answer(reply)), None)
        await _call_off(asking)
        if not replied:
            raise failures[0]
        yield replied[0][1] if found is None else found
    finally:
        await _call_off(asking)
        for call, _ in replied:
            await call.__aexit__(None, None, None)


async def _call_off(asking: dict[asyncio.Task[Reply], Call]) -> None:
    tasks: Collection[asyncio.Task[Reply]] = tuple(asking)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        call = asking.pop(task)
        if not task.cancelled() and task.exception() is None:
            await call.__aexit__(None, None, None)
