"""A job that was submitted: look at it, wait for it, follow it, call it off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from corral.call import Call, marking, new_call
from corral.errors import CallTimeoutError, ConfigurationError, CorralError
from corral.portal import Portal, SyncStream
from corral.prompts import path_of
from corral.replies import job_answer
from corral.settings import is_number
from corral.shapes import Answer, JobEvent, JobStatus
from corral.surface import Parts
from corral.under_way import streamed


class AsyncJob:
    """A job by its id. Nothing here ends the job but :meth:`cancel`: who stops waiting may come back, also from another
    process.
    """

    def __init__(self, parts: Parts, job_id: str, request_id: str | None = None) -> None:
        path_of(job_id)
        self._parts = parts
        self.id = job_id
        self.request_id = request_id
        """Under which it was submitted, where that is known."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    async def status(self) -> JobStatus:
        """Where it stands."""
        async with self._asking() as call:
            return await self._parts.prompts.status(call, self.id)

    async def wait(self, timeout: float | None = None) -> JobStatus:  # noqa: ASYNC109 - as in the standard library
        """Where it stands once it is final. Raises CallTimeoutError after ``timeout`` seconds."""
        async with self._asking(timeout) as call:
            return await self._parts.prompts.until_final(call, self.id)

    async def result(self, timeout: float | None = None) -> Answer:  # noqa: ASYNC109
        """What it has brought. Raises JobFailedError, JobCancelledError, and CallTimeoutError when time is out."""
        async with self._asking(timeout) as call:
            return job_answer(await self._parts.prompts.result(call, self.id), call)

    @streamed
    async def stream(self, from_: str | None = None) -> AsyncGenerator[JobEvent]:
        """News of it until it is final, from the beginning or behind an event's ``position``."""
        _require_position(from_)
        call = self._call()
        with marking(call):
            async with aclosing(self._parts.prompts.events(call, self.id, from_)) as events:
                async for event in events:
                    yield event

    async def cancel(self) -> JobStatus:
        """Call it off; how it stands afterwards."""
        async with self._asking() as call:
            return await self._parts.prompts.cancel(call, self.id)

    async def request(self) -> dict[str, Any]:
        """The body with which Ollama is asked."""
        async with self._asking() as call:
            return await self._parts.prompts.request(call, self.id)

    @asynccontextmanager
    async def _asking(self, seconds: float | None = None) -> AsyncIterator[Call]:
        if seconds is not None and not is_number(seconds):
            raise ConfigurationError(f"timeout = {seconds!r}: give a number of seconds")
        call = self._call()
        async with self._parts.asking_as(call):
            try:
                async with asyncio.timeout(seconds):
                    yield call
            except CorralError:
                raise
            except TimeoutError:
                raise CallTimeoutError(f"the job {self.id} was not final within {seconds:g} s; it goes on") from None

    def _call(self) -> Call:
        self._parts.require_open()
        call = new_call(self.request_id)
        call.job_id = self.id
        return call


def _require_position(value: Any) -> None:
    if value is not None and not (isinstance(value, str) and value.isascii() and value.isprintable()):
        raise ConfigurationError(f"from_ = {value!r}: give the position of an event")


class Job:
    """The same, for programs that wait."""

    def __init__(self, job: AsyncJob, portal: Portal) -> None:
        self._job = job
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._job).removeprefix("Async")

    @property
    def id(self) -> str:
        """For coming back to it."""
        return self._job.id

    @property
    def request_id(self) -> str | None:
        """Under which it was submitted, where that is known."""
        return self._job.request_id

    def status(self) -> JobStatus:
        """Where it stands."""
        return self._portal.call(self._job.status)

    def wait(self, timeout: float | None = None) -> JobStatus:
        """Where it stands once it is final. Raises CallTimeoutError after ``timeout`` seconds."""
        return self._portal.call(self._job.wait, timeout)

    def result(self, timeout: float | None = None) -> Answer:
        """What it has brought. Raises JobFailedError, JobCancelledError, and CallTimeoutError when time is out."""
        return self._portal.call(self._job.result, timeout)

    def stream(self, from_: str | None = None) -> Iterator[JobEvent]:
        """News of it until it is final, from the beginning or behind an event's ``position``."""
        return SyncStream(self._portal, self._job.stream(from_))

    def cancel(self) -> JobStatus:
        """Call it off; how it stands afterwards."""
        return self._portal.call(self._job.cancel)

    def request(self) -> dict[str, Any]:
        """The body with which Ollama is asked."""
        return self._portal.call(self._job.request)
