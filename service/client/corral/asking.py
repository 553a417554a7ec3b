"""Calls that ask a model: each waits for a place, is tried, is counted once, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext
from typing import Any, TypeVar

from corral.call import Call
from corral.errors import (
    CallTimeoutError,
    ConfigurationError,
    ConnectionFailedError,
    CorralError,
    JobCancelledError,
    JobFailedError,
    NotSupportedError,
    StreamBrokenError,
)
from corral.logs import log
from corral.places import Places, word_of
from corral.prompts import Prompts, Submission
from corral.replies import (
    embeddings,
    job_answer,
    last_chunk,
    native_answer,
    native_chunk,
    native_usage,
    raise_failure,
    require_whole,
    text_of_part,
)
from corral.requests import CHAT, GENERATE, Request
from corral.server import Server
from corral.settings import OLLAMAS_MODEL
from corral.shapes import Answer, Chunk, Embeddings, Usage
from corral.stats import Stats, usage_of
from corral.under_way import UnderWay
from corral.wire import json_bytes

T = TypeVar("T")

_ANSWERS = (CHAT, GENERATE)
"""The endpoints whose last object says that it is done."""
_STEPS = ("/api/pull", "/api/push", "/api/create")
"""Those whose last one says that it was a success."""


_SILENT = ("/api/copy",)
"""Those whose whole reply has nothing in it: a status says that it was done."""


class Flight:
    """The items of a map that are under way. Jobs are submitted one after another, so that they keep their order, and
    that a service which is started again breaks off one submission and not all.
    """

    def __init__(self) -> None:
        self.submitting = asyncio.Lock()


class Asking:
    """Asks models, at Corral or at a bare Ollama."""

    def __init__(self, server: Server, prompts: Prompts, places: Places, stats: Stats, under_way: UnderWay) -> None:
        self._server = server
        self._prompts = prompts
        self._places = places
        self._stats = stats
        self._under_way = under_way

    async def answer(self, request: Request, call: Call, *, is_refusable: bool = True) -> Answer:
        """The whole answer. ``is_refusable``: when too many calls wait for a place already."""

        async def ask() -> Answer:
            if request.is_prompt and await self._server.is_corral(call):
                return await self._by_job(request, call)
            reply, model = await self._directly(request, call, require_whole)
            return native_answer(reply, call, model)

        return await self._counted(call, ask, _usage, is_refusable=is_refusable)

    async def embeddings(self, request: Request, call: Call) -> Embeddings:
        """The vectors."""

        async def ask() -> Embeddings:
            reply, model = await self._directly(request, call, _require_embeddings)
            return embeddings(reply, model)

        return await self._counted(call, ask, _usage)

    async def post(self, path: str, data: Mapping[str, Any], call: Call) -> Any:
        """The server's own JSON, whole."""
        content = _content(data, is_streamed=False)

        async def ask() -> Any:
            is_corral = await self._server.is_corral(call)
            headers = self._headers(call, is_corral=is_corral)
            return await self._server.ask(
                call, "POST", path, content=content, headers=headers, is_queued=is_corral, check=check
            )

        check = _as_it_is if _route_of(path) in _SILENT else _require_something
        return await self._counted(call, ask, lambda reply: native_usage(reply) if isinstance(reply, dict) else _NONE)

    def post_stream(self, path: str, data: Mapping[str, Any], call: Call) -> AsyncGenerator[dict[str, Any]]:
        """The objects of the server's streamed reply."""
        content = _content(data, is_streamed=True)

        is_done = _end_of(path)

        async def objects() -> AsyncGenerator[dict[str, Any]]:
            headers = self._headers(call, is_corral=await self._server.is_corral(call))
            stream = await self._server.opened(
                call, path, content, headers, lambda found: found, text_of_part, is_done=is_done
            )
            async with aclosing(stream.items()) as items:
                async for item in items:
                    yield item

        return self._under_way.stream(self._counted_stream(call, objects, native_usage, is_done))

    def chunks(self, request: Request, call: Call) -> AsyncGenerator[Chunk]:
        """The answer piece by piece."""

        async def ask() -> AsyncGenerator[Chunk]:
            is_job = request.is_prompt and await self._server.is_corral(call)
            source = self._chunks_of_job(request, call) if is_job else self._direct_chunks(request, call)
            async with aclosing(source) as chunks:
                async for chunk in chunks:
                    yield chunk

        return self._under_way.stream(self._counted_stream(call, ask, _usage, _says_done))

    async def item(self, request: Request, call: Call, flight: Flight) -> Answer:
        """The answer to an item of a map. As a job it holds no place, since Corral has a queue of its own; at a bare
        Ollama it waits for one, however many wait: the map itself holds its input back.
        """

        async def ask() -> Answer:
            submission = Submission(call, json_bytes(request.prompt_body()))
            async with self._given_up_unless_done(submission), flight.submitting:
                await self._prompts.submit(submission)
            return await self._result(submission)

        try:
            async with within(call), flight.submitting:
                is_job = request.is_prompt and await self._server.is_corral(call)
        except BaseException as error:
            self._end(call, error)
            raise
        if is_job:
            return await self._counted(call, ask, _usage, needs_place=False)
        return await self.answer(request, call, is_refusable=False)

    async def _by_job(self, request: Request, call: Call) -> Answer:
        submission = Submission(call, json_bytes(request.prompt_body()))
        async with self._given_up_unless_done(submission):
            await self._prompts.submit(submission)
        return await self._result(submission)

    async def _result(self, submission: Submission) -> Answer:
        call = submission.call
        assert call.job_id is not None
        async with self._given_up_unless_done(submission):
            return job_answer(await self._prompts.result(call, call.job_id), call)

    async def _chunks_of_job(self, request: Request, call: Call) -> AsyncGenerator[Chunk]:
        submission = Submission(call, json_bytes(request.prompt_body()))
        model, text, is_handed_out = request.model or "", "", False
        async with self._given_up_unless_done(submission):
            job_id = (await self._prompts.submit(submission))["id"]
            async with aclosing(self._prompts.events(call, job_id, None)) as events:
                async for event in events:
                    kind = event["type"]
                    if kind == "status":
                        model = event["job"]["model"]
                    elif kind == "restart" and is_handed_out:
                        raise StreamBrokenError("the answer was begun anew after a part of it was handed out", text)
                    elif kind == "done":
                        break
                    elif kind in ("text", "thinking", "tool_calls"):
                        is_handed_out = True
                        chunk: Chunk = {"text": "", "done": False, "model": model}
                        if kind == "tool_calls":
                            chunk["tool_calls"] = event["tool_calls"]
                        elif kind == "thinking":
                            chunk["thinking"] = event["text"]
                        else:
                            chunk["text"] = event["text"]
                            text += event["text"]
                        yield chunk
            job = await self._prompts.result(call, job_id)
            raise_failure(job)
        yield last_chunk(job, call)

    async def _direct_chunks(self, request: Request, call: Call) -> AsyncGenerator[Chunk]:
        is_corral = await self._server.is_corral(call)
        model = await self._model(request, call, is_corral=is_corral)
        stream = await self._server.opened(
            call,
            request.endpoint,
            json_bytes(request.native_body(model, is_streamed=True)),
            self._headers(call, request, is_corral=is_corral),
            lambda found: native_chunk(found, call, model),
            lambda chunk: chunk["text"],
            is_done=_says_done,
        )
        async with aclosing(stream.items()) as items:
            async for item in items:
                yield item

    async def _directly(self, request: Request, call: Call, check: Callable[[Any], Any]) -> tuple[Any, str]:
        """The reply to one POST, and the model that was asked for."""
        is_corral = await self._server.is_corral(call)
        model = await self._model(request, call, is_corral=is_corral)
        reply = await self._server.ask(
            call,
            "POST",
            request.endpoint,
            content=json_bytes(request.native_body(model, is_streamed=False)),
            headers=self._headers(call, request, is_corral=is_corral),
            is_queued=is_corral,
            check=check,
        )
        return reply, model

    async def _model(self, request: Request, call: Call, *, is_corral: bool) -> str:
        if request.model:
            return request.model
        return await self._server.corrals_model(call) if is_corral else OLLAMAS_MODEL

    def _headers(self, call: Call, request: Request | None = None, *, is_corral: bool) -> dict[str, str]:
        headers = {"Idempotency-Key": call.key}
        if is_corral:
            headers["X-Priority"] = word_of(call.rank)
        if request is None:
            return headers
        wishes = request.wishes
        if not is_corral and (wishes.not_before is not None or wishes.expires_in_seconds is not None):
            raise NotSupportedError("not_before, expires_in_seconds: a bare Ollama has no queue; start Corral")
        if wishes.not_before is not None:
            raise ConfigurationError("not_before: goes together only with what POST /api/v1/prompt takes")
        if wishes.expires_in_seconds is not None:
            headers["X-Job-Deadline-Seconds"] = f"{wishes.expires_in_seconds:g}"
        return headers

    @asynccontextmanager
    async def _given_up_unless_done(self, submission: Submission) -> AsyncIterator[None]:
        """Call the job off when the block is left before its end is known."""
        try:
            yield
        except (JobFailedError, JobCancelledError):
            raise
        except CorralError as error:
            await self._prompts.give_up_unless_refused(submission, error)
            raise
        except BaseException:
            await self._prompts.give_up(submission)
            raise

    async def _counted(
        self,
        call: Call,
        ask: Callable[[], Awaitable[T]],
        usage_of_reply: Callable[[T], Usage],
        *,
        needs_place: bool = True,
        is_refusable: bool = True,
    ) -> T:
        """Ask, in a place of the queue where it needs one, within the call's time."""
        try:
            async with self._under_way.waiting(), within(call):
                if needs_place:
                    await self._places.take(call.rank, is_refusable=is_refusable)
                with self._places.given_back() if needs_place else nullcontext():
                    reply = await ask()
        except BaseException as error:
            self._end(call, error)
            raise
        self._stats.succeeded(usage_of_reply(reply))
        log.debug("[%s] answered after %d attempts", call.request_id, call.attempts)
        return reply

    async def _counted_stream(
        self,
        call: Call,
        ask: Callable[[], AsyncGenerator[T]],
        usage_of_item: Callable[[T], Usage],
        is_last: Callable[[T], bool] | None,
    ) -> AsyncGenerator[T]:
        """The same for a stream, which holds its place until it ends, is closed, or is garbage."""
        usage, is_whole = _NONE, False
        try:
            async with within(call):
                await self._places.take(call.rank)
            with self._places.given_back():
                async with aclosing(ask()) as items:
                    while True:
                        async with within(call):
                            item = await anext(items, None)
                        if item is None:
                            break
                        usage = max(usage, usage_of_item(item), key=lambda known: known["total_tokens"])
                        is_whole = is_last is not None and is_last(item)
                        yield item
            is_whole = True
        except BaseException as error:
            if isinstance(error, GeneratorExit) and is_whole:
                raise
            self._end(call, error, is_counted=False)
            raise
        finally:
            if is_whole:
                self._stats.succeeded(usage)
            else:
                self._stats.failed()

    def _end(self, call: Call, error: BaseException, *, is_counted: bool = True) -> None:
        if is_counted:
            self._stats.failed()
        if isinstance(error, CorralError):
            call.mark(error)
            log.debug("[%s] failed after %d attempts: %s", call.request_id, call.attempts, error)


_NONE = usage_of(0, 0)


@asynccontextmanager
async def within(call: Call) -> AsyncIterator[None]:
    """Raises CallTimeoutError when the call's time is over, which begins with its first block."""
    if call.deadline is None and call.max_wait_seconds is not None:
        call.deadline = asyncio.get_running_loop().time() + call.max_wait_seconds
    try:
        async with asyncio.timeout_at(call.deadline):
            yield
    except CorralError:
        raise
    except TimeoutError:
        raise CallTimeoutError(
            f"there was no answer within max_wait_seconds = {call.max_wait_seconds:g}: allow more, or ask for less"
        ) from None


def _require_embeddings(reply: Any) -> Any:
    embeddings(reply, "")
    return reply


def _usage(answer: Mapping[str, Any]) -> Usage:
    usage: Usage = answer.get("usage", _NONE)
    return usage


def _content(data: Any, *, is_streamed: bool) -> bytes:
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"data = {data!r}: give a dict, the body of the request")
    return json_bytes({**data, "stream": is_streamed})


def _end_of(path: str) -> Callable[[Mapping[str, Any]], bool] | None:
    """What knows the last object of a route's stream; None where none says so, or the stream itself knows."""
    route = _route_of(path)
    return _says_done if route in _ANSWERS else _says_success if route in _STEPS else None


def _route_of(path: str) -> str:
    return path.partition("?")[0].rstrip("/")


def _as_it_is(reply: Any) -> Any:
    return reply


def _require_something(reply: Any) -> Any:
    if reply is None:
        raise ConnectionFailedError("the reply has come in part: there is nothing in it")
    return reply


def _says_success(found: Mapping[str, Any]) -> bool:
    return found.get("status") == "success"


def _says_done(found: Mapping[str, Any]) -> bool:
    return found.get("done") is True
