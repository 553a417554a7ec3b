"""Corral's prompts API: jobs submitted, waited for, followed, listed and called off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import anyio

from corral.call import Call
from corral.errors import (
    CallTimeoutError,
    ConfigurationError,
    ConnectionFailedError,
    CorralError,
    NotSupportedError,
    ServerError,
)
from corral.logs import log
from corral.replies import job_event, job_usage, require_accepted, require_job, require_number, require_page
from corral.server import Server
from corral.shapes import AcceptedJob, JobEvent, JobResult, JobStatus
from corral.stats import Stats
from corral.wire import Event, json_bytes

_LONGEST_POLL_SECONDS = 30.0
_EARLY_SECONDS = 1.0
"""A poll that is answered sooner, without an end, is answered by a service that stops."""
_GIVE_UP_SECONDS = 2.0
"""For calling a job off. Whoever has given up a call does not wait for longer, not even at an interpreter's exit."""
_AFTER_SILENCE_SECONDS = 0.3
"""The same for a while when that time was over without an answer, as for an exit that follows a Ctrl-C."""
_SILENCE_SECONDS = 5.0
"""How long that while is."""
_PAGE_SIZE = 100
_FINAL = ("completed", "failed", "cancelled")


@dataclass
class Submission:
    """A job on its way. ``content`` is sent byte for byte each time, with the call's key."""

    call: Call
    content: bytes
    is_sent: bool = False


class Prompts:
    """What can be done with jobs. Following a job that Corral has accepted never asks the circuit, nor counts there:
    a service that is started again finds its jobs, and those who wait for them must not give up together.
    """

    def __init__(self, server: Server, stats: Stats) -> None:
        self._server = server
        self._stats = stats
        self._ending: set[asyncio.Task[None]] = set()
        """Jobs that are being called off. The loop itself does not keep its tasks."""
        self._silent_until = 0.0
        """By the loop's clock: it was silent when jobs were called off."""

    async def require(self, call: Call, *, is_guarded: bool = True) -> None:
        """Raises NotSupportedError at a bare Ollama."""
        if not await self._server.is_corral(call, is_guarded=is_guarded):
            raise NotSupportedError(
                "the server is a bare Ollama, which has no queue: start Corral with `python -m service` and set "
                "CORRAL_URL to its address"
            )

    async def submit(self, submission: Submission) -> AcceptedJob:
        """The job once it is on disk; its id is the call's from then on."""
        call = submission.call
        await self.require(call)
        submission.is_sent = True
        accepted: AcceptedJob = await self._server.ask(
            call,
            "POST",
            "/api/v1/prompt",
            content=submission.content,
            headers={"Idempotency-Key": call.key},
            check=require_accepted,
        )
        call.job_id = accepted["id"]
        return accepted

    async def give_up(self, submission: Submission) -> None:
        """Call the job off, also where its id is not known yet: the same request again tells it.

        It waits for a few seconds, however often the caller is cancelled meanwhile, and raises nothing but that.
        """
        if not submission.is_sent:
            return
        task = self._ending_of(submission)
        cancelled: asyncio.CancelledError | None = None
        # Without the scope anyio would cancel again and again, as long as its own scope is cancelled.
        with anyio.CancelScope(shield=True):
            while not task.done() or task.cancelled():
                if task.cancelled():
                    # Before it had begun.
                    task = self._ending_of(submission)
                try:
                    await asyncio.shield(task)
                except asyncio.CancelledError as error:
                    cancelled = error
        if cancelled is not None:
            raise cancelled

    async def give_up_unless_refused(self, submission: Submission, error: CorralError) -> None:
        """The same after a submission that has ended in an error, which may have lost no more than the reply.

        Not where the caller has given the key: with it the job is found again, and must not be cancelled then.
        """
        is_unknown = isinstance(error, ConnectionFailedError | CallTimeoutError | ServerError)
        if submission.call.job_id is not None or (is_unknown and submission.call.is_key_new):
            await self.give_up(submission)

    def _ending_of(self, submission: Submission) -> asyncio.Task[None]:
        task = asyncio.create_task(self._call_off(submission))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    async def _call_off(self, submission: Submission) -> None:
        call = submission.call
        begun = anyio.current_time()
        deadline = begun + (_AFTER_SILENCE_SECONDS if begun < self._silent_until else _GIVE_UP_SECONDS)
        while anyio.current_time() < deadline:
            try:
                with anyio.CancelScope(deadline=deadline):
                    await self._delete(submission)
                    self._silent_until = 0.0
                    return
            except asyncio.CancelledError:
                # A loop that ends cancels all tasks, and waits for them.
                continue
            except CorralError as error:
                log.debug("[%s] the job could not be called off: %s", call.request_id, error)
                return
        self._silent_until = anyio.current_time() + _SILENCE_SECONDS
        log.debug("[%s] the job could not be called off in time: it goes on", call.request_id)

    async def _delete(self, submission: Submission) -> None:
        call, wire = submission.call, self._server.wire
        named = {"X-Request-ID": call.request_id}
        if call.job_id is None:
            headers = {"Idempotency-Key": call.key, **named}
            found = await wire.request("POST", "/api/v1/prompt", content=submission.content, headers=headers)
            call.job_id = str(require_accepted(found)["id"])
        await wire.request("DELETE", path_of(call.job_id), headers=named)

    async def status(self, call: Call, job_id: str, known: str | None = None) -> JobStatus:
        """Where the job stands; with ``known`` as soon as its status is another, or after a while."""
        query = "" if known is None else "?" + urlencode({"wait": f"{self._poll_seconds():g}", "status": known})
        job: JobStatus = await self._of_job(call, "GET", job_id, f"/status{query}")
        self._stats.saw(job)
        return job

    async def until_final(self, call: Call, job_id: str) -> JobStatus:
        """The job once it is final."""
        job = await self.status(call, job_id)
        while job["status"] not in _FINAL:
            begun, known = self._server.time.clock(), job["status"]
            job = await self.status(call, job_id, known)
            if job["status"] == known:
                await self._pause_when_early(begun)
        return job

    async def result(self, call: Call, job_id: str) -> JobResult:
        """What the job has brought, once it is final."""
        while True:
            begun = self._server.time.clock()
            job = await self.poll(call, job_id, self._poll_seconds())
            if job["status"] in _FINAL:
                return job
            await self._pause_when_early(begun)

    async def poll(self, call: Call, job_id: str, wait_seconds: float) -> JobResult:
        """The job once it is final, or as it stands after a while."""
        job: JobResult = await self._of_job(call, "GET", job_id, f"/result?wait={wait_seconds:g}")
        if job["status"] in _FINAL:
            self._stats.saw(job, job_usage(job))
        return job

    async def cancel(self, call: Call, job_id: str) -> JobStatus:
        """The job afterwards: one that was final already stays as it was."""
        job: JobStatus = await self._of_job(call, "DELETE", job_id, "")
        self._stats.saw(job)
        return job

    async def request(self, call: Call, job_id: str) -> dict[str, Any]:
        """The body with which Ollama is asked."""
        body: dict[str, Any] = await self._of_job(call, "GET", job_id, "/request", _object)
        return body

    async def events(self, call: Call, job_id: str, from_: str | None) -> AsyncGenerator[JobEvent]:
        """News of the job until it is final, through as many connections as that takes."""
        await self.require(call, is_guarded=False)
        position, empty = from_, 0
        while True:
            is_empty = True
            connection, events = await self._connect(call, job_id, position)
            async with connection:
                try:
                    async for event in events:
                        # What is broken comes again: it must not be asked for without an end.
                        is_empty = True
                        found = job_event(event.name, event.data, event.position or position)
                        is_empty = False
                        if found is None:
                            continue
                        position = found["position"]
                        if found["type"] == "status":
                            self._stats.saw(found["job"])
                        yield found
                        if found["type"] == "done":
                            return
                    last: CorralError = ConnectionFailedError("the service ended the stream before the job did")
                except (ConnectionFailedError, CallTimeoutError) as error:
                    last = error
            log.debug("[%s] the job %s is followed again: %s", call.request_id, job_id, last)
            empty = empty + 1 if is_empty else 0
            if empty > self._server.settings.max_retries:
                raise last
            # A job that waits has nothing to say: after a silence the next connection shows whether the service lives.
            if is_empty or not isinstance(last, CallTimeoutError):
                await self._server.retries.pause(empty + 1)

    async def page(self, call: Call, filters: Mapping[str, str]) -> tuple[list[JobStatus], str | None]:
        """A page of the list, newest first, and behind which job it goes on; None at the end. A search may find nothing
        for a page, and go on.
        """
        await self.require(call)
        query = urlencode({"page_size": _PAGE_SIZE, **filters}, errors="replace")
        found = await self._server.ask(call, "GET", f"/api/v1/prompts?{query}", check=require_page)
        return found["prompts"], found.get("next")

    async def cancel_all(
        self, call: Call, filters: Mapping[str, Any], *, everybody: bool, is_dry_run: bool = False
    ) -> int:
        """How many jobs were cancelled, or would be."""
        await self.require(call)
        body = {"filter": filters, "everybody": everybody, **({"dry_run": True} if is_dry_run else {})}
        counted = "matching" if is_dry_run else "cancelled"
        found = await self._server.ask(
            call,
            "POST",
            "/api/v1/prompts/cancel",
            content=json_bytes(body),
            check=require_number(counted),
            is_queued=True,
        )
        cancelled: int = found[counted]
        return cancelled

    async def _of_job(
        self, call: Call, method: str, job_id: str, rest: str, check: Callable[[Any], Any] = require_job
    ) -> Any:
        await self.require(call, is_guarded=False)
        call.job_id = job_id
        return await self._server.ask(call, method, path_of(job_id) + rest, is_guarded=False, check=check)

    def _poll_seconds(self) -> float:
        return min(self._server.settings.timeout / 2, _LONGEST_POLL_SECONDS)

    async def _pause_when_early(self, begun: float) -> None:
        seconds = min(_EARLY_SECONDS, self._poll_seconds() / 2)
        if self._server.time.clock() - begun < seconds:
            await self._server.time.sleep(seconds)

    async def _connect(
        self, call: Call, job_id: str, position: str | None
    ) -> tuple[AsyncExitStack, AsyncIterator[Event]]:
        """A connection to be closed, and the events that come by it; that it comes about is tried several times."""
        headers = {"X-Request-ID": call.request_id}
        if position is not None:
            headers["Last-Event-ID"] = position

        async def attempt() -> tuple[AsyncExitStack, AsyncIterator[Event]]:
            stack = AsyncExitStack()
            events = await stack.enter_async_context(self._server.wire.events(f"{path_of(job_id)}/stream", headers))
            return stack, events

        return await self._server.retries.run(call, attempt, is_guarded=False)


def path_of(job_id: Any) -> str:
    """The path below the server's address. Raises ConfigurationError for what is no id."""
    if not isinstance(job_id, str) or not job_id or not job_id.isprintable():
        raise ConfigurationError(f"job_id = {job_id!r}: give the id of a job")
    return f"/api/v1/prompt/{quote(job_id, safe='')}"


def _object(reply: Any) -> Any:
    if not isinstance(reply, dict):
        raise ConnectionFailedError(f"the reply is no object: {str(reply)[:60]!r}")
    return reply
