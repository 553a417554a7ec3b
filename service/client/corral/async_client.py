"""The client for programs with an event loop, and the one implementation of all calls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, overload

import httpx2

from corral.asking import Flight
from corral.call import Call, marking, new_call
from corral.errors import ConfigurationError, CorralError
from corral.job import AsyncJob
from corral.logs import log
from corral.prompts import Submission
from corral.replies import native_answer, native_chunk, require_models
from corral.requests import Request, chat_request, chosen_model, embed_request, generate_request, submission
from corral.shapes import Answer, Chunk, Embeddings, JobStatus, Priority
from corral.surface import END, ENDPOINT_TYPES, TEST_PROMPT, Items, Parts, Surface, require_in_flight
from corral.under_way import streamed
from corral.wire import json_bytes


class AsyncClient(Surface):
    """Asks Corral, or a bare Ollama. It may be used under one event loop after another.

    Where nothing is given, metadata (``ollama_api_url``, ``api_key``, ``ollama_model``, ``timeout``, ``queue_size``,
    ``max_concurrent_requests``) and then the environment (``CORRAL_URL`` or ``OLLAMA_API_URL``, ``CORRAL_KEY``,
    ``OLLAMA_MODEL``) say where, who and which model. ``timeout`` is how many seconds the server may be silent; the wait
    in Corral's queue does not count. Raises ConfigurationError.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(Parts(base_url, api_key, model, timeout, headers, metadata, resources, transport))

    # Asking

    async def chat(
        self,
        model_name: str | None = None,
        model: str | None = None,
        messages: Sequence[Mapping[str, Any]] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        request_id: str | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Answer:
        """The answer to a conversation. Other keywords are ``priority``, ``max_wait_seconds``, ``idempotency_key``,
        ``not_before``, ``expires_in_seconds``, fields of Ollama's such as ``system`` and ``think``, and options.
        """
        chosen = self._model_of(chosen_model(model_name, model))
        asked = chat_request(chosen, messages, max_tokens, temperature, options, kwargs)
        return await self._answer(asked, request_id)

    async def generate(
        self,
        model: str | None = None,
        prompt: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        request_id: str | None = None,
        **kwargs: Any,
    ) -> Answer:
        """The answer to a prompt, with the keywords of :meth:`chat`."""
        asked = generate_request(self._model_of(model), prompt, max_tokens, temperature, kwargs)
        return await self._answer(asked, request_id)

    async def completions(
        self,
        model: str | None = None,
        prompt: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        request_id: str | None = None,
        **kwargs: Any,
    ) -> Answer:
        """The same as :meth:`generate`."""
        return await self.generate(model, prompt, max_tokens, temperature, request_id, **kwargs)

    def stream_chat(
        self,
        model_name: str | None = None,
        model: str | None = None,
        messages: Sequence[Mapping[str, Any]] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        request_id: str | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Chunk]:
        """The answer to a conversation while it is written. Raises StreamBrokenError where it cannot be whole."""
        chosen = self._model_of(chosen_model(model_name, model))
        asked = chat_request(chosen, messages, max_tokens, temperature, options, kwargs)
        call = self._call_for(asked, request_id)
        if self._has_own_post(AsyncClient):
            return self._chunks_by_own_post(asked, call)
        return self._parts.asking.chunks(asked, call)

    async def embed(
        self,
        input: str | Sequence[str],
        model: str | None = None,
        *,
        request_id: str | None = None,
        **kwargs: Any,
    ) -> Embeddings:
        """One vector for each text."""
        asked = embed_request(input, self._model_of(model), kwargs)
        return await self._parts.asking.embeddings(asked, self._call_for(asked, request_id))

    def __call__(self, endpoint_type: str, **kwargs: Any) -> Any:
        """``chat``, ``stream_chat``, ``generate``, ``completions`` or ``embed``, by its name."""
        if endpoint_type not in ENDPOINT_TYPES:
            raise ConfigurationError(f"endpoint_type = {endpoint_type!r}: give one of {', '.join(ENDPOINT_TYPES)}")
        if endpoint_type == "embed":
            kwargs.setdefault("input", None)
        return getattr(self, endpoint_type)(**kwargs)

    async def make_post_request_ollama(
        self,
        endpoint_url: str,
        data: Mapping[str, Any],
        stream: bool = False,
        request_id: str | None = None,
        priority: Priority = None,
    ) -> Any:
        """The server's own JSON; with ``stream`` an iterator of its objects. ``endpoint_url`` is of this server."""
        call = self._new_call(request_id, priority)
        path = self._parts.address.path_of(endpoint_url)
        if stream:
            return self._parts.asking.post_stream(path, data, call)
        return await self._parts.asking.post(path, data, call)

    # Jobs

    async def submit(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        model: str | None = None,
        priority: Priority = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        options: Mapping[str, Any] | None = None,
        system: str | None = None,
        format: Any = None,
        images: Sequence[str] | None = None,
        think: bool | str | None = None,
        keep_alive: float | str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        not_before: Any = None,
        expires_in_seconds: float | None = None,
        request_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncJob:
        """A job, once it is on disk. ``not_before`` is a datetime, RFC 3339 or seconds since the epoch."""
        self._parts.require_open()
        fields = {
            "priority": priority,
            "system": system,
            "format": format,
            "images": images,
            "think": think,
            "keep_alive": keep_alive,
            "tools": tools,
            "not_before": not_before,
            "expires_in_seconds": expires_in_seconds,
        }
        chosen = self._model_of(model)
        content = json_bytes(submission(prompt, messages, chosen, max_tokens, temperature, options, fields))
        call = new_call(request_id, idempotency_key=idempotency_key)
        submitted = Submission(call, content)
        async with self._parts.asking_as(call):
            try:
                job_id = (await self._parts.prompts.submit(submitted))["id"]
            except CorralError as error:
                await self._parts.prompts.give_up_unless_refused(submitted, error)
                raise
            except BaseException:
                await self._parts.prompts.give_up(submitted)
                raise
        self._parts.stats.expect(job_id)
        return AsyncJob(self._parts, job_id, call.request_id)

    def job(self, job_id: str) -> AsyncJob:
        """A job whose id was written down; nothing is asked yet."""
        return AsyncJob(self._parts, job_id)

    @streamed
    async def jobs(
        self, *, status: str | None = None, model: str | None = None, text: str | None = None
    ) -> AsyncGenerator[JobStatus]:
        """The jobs that the caller may see, newest first; ``text`` is looked for in their prompts."""
        call = self._new_call(None)
        given = {"status": status, "model": model, "q": text}
        filters = {name: value for name, value in given.items() if value is not None}
        with marking(call):
            while True:
                page, after = await self._parts.prompts.page(call, filters)
                for job in page:
                    yield job
                if after in (None, filters.get("before")):
                    return
                filters["before"] = after

    async def cancel_all(
        self, *, status: str | Sequence[str] | None = None, model: str | None = None, everybody: bool = False
    ) -> int:
        """Cancel the caller's own unfinished jobs; with ``everybody`` all that it may see. How many they were."""
        call = self._new_call(None)
        filters: dict[str, Any] = {}
        if status is not None:
            if not isinstance(status, Iterable):
                raise ConfigurationError(f'status = {status!r}: give "queued", "processing", or a list of them')
            filters["status"] = [status] if isinstance(status, str) else list(status)
        if model is not None:
            filters["model"] = model
        async with self._parts.asking_as(call):
            return await self._parts.prompts.cancel_all(call, filters, everybody=everybody)

    @overload
    def map(
        self,
        prompts: Iterable[str | Mapping[str, Any]],
        *,
        in_flight: int = 32,
        return_exceptions: Literal[False] = False,
        **shared: Any,
    ) -> AsyncGenerator[Answer]: ...
    @overload
    def map(
        self,
        prompts: Iterable[str | Mapping[str, Any]],
        *,
        in_flight: int = 32,
        return_exceptions: bool,
        **shared: Any,
    ) -> AsyncGenerator[Answer | Exception]: ...
    @streamed
    async def map(
        self,
        prompts: Iterable[str | Mapping[str, Any]],
        *,
        in_flight: int = 32,
        return_exceptions: bool = False,
        **shared: Any,
    ) -> AsyncGenerator[Any]:
        """The answers, in the order of the prompts, of which at most ``in_flight`` are taken in advance."""
        require_in_flight(in_flight)
        items = Items(prompts)
        flight = Flight()
        pending: deque[asyncio.Task[Answer]] = deque()
        try:
            while True:
                while len(pending) < in_flight and (item := items.take()) is not END:
                    pending.append(asyncio.create_task(self._item(item, shared, flight)))
                if not pending:
                    items.end()
                    return
                # Whoever is cancelled while he waits for a task cancels that one alone, and waits for its end.
                await asyncio.wait((pending[0],))
                try:
                    answer: Answer | Exception = pending[0].result()
                except Exception as error:
                    if not return_exceptions:
                        raise
                    answer = error
                pending.popleft()
                yield answer
        finally:
            for one in pending:
                one.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    # Others

    async def list_models(self) -> list[dict[str, Any]]:
        """The models that are installed, as Ollama lists them."""
        call = self._new_call(None)
        async with self._parts.asking_as(call):
            # It would be answered by both; but whoever has called once knows which it is.
            await self._parts.server.is_corral(call)
            found = await self._parts.server.ask(call, "GET", "/api/tags", check=require_models)
        models: list[dict[str, Any]] = found.get("models") or []
        return models

    def create_ollama_endpoint_handler(self, endpoint_url: str | None = None) -> Callable[..., Awaitable[Answer]]:
        """An ``async`` function of a prompt and the keywords of :meth:`generate`."""
        self._require_own(endpoint_url)

        async def handler(prompt: str, **kwargs: Any) -> Answer:
            return await self.generate(prompt=prompt, **kwargs)

        return handler

    async def test_ollama_endpoint(self, endpoint_url: str | None = None) -> bool:
        """Whether the default model answers; why not, is logged. Raises ConfigurationError, as all others do."""
        self._require_own(endpoint_url)
        try:
            return bool((await self.generate(prompt=TEST_PROMPT))["text"])
        except ConfigurationError:
            raise
        except CorralError as error:
            log.warning("[%s] the test of %s failed: %s", error.request_id, self.base_url, error)
            return False

    async def aclose(self) -> None:
        """Call off what is under way, and close the connections; a closed client raises ConfigurationError."""
        await self._parts.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # Within

    async def _item(self, item: str | Mapping[str, Any], shared: Mapping[str, Any], flight: Flight) -> Answer:
        asked, request_id = self._item_request(item, shared)
        if self._has_own_post(AsyncClient):
            return await self._answer(asked, request_id)
        return await self._parts.asking.item(asked, self._call_for(asked, request_id), flight)

    async def _answer(self, asked: Request, request_id: str | None) -> Answer:
        call = self._call_for(asked, request_id)
        if not self._has_own_post(AsyncClient):
            return await self._parts.asking.answer(asked, call)
        url, body = self._own_post(asked, is_streamed=False)
        priority = asked.wishes.priority
        reply = await self.make_post_request_ollama(url, body, request_id=call.request_id, priority=priority)
        return native_answer(reply, call, body["model"])

    @streamed
    async def _chunks_by_own_post(self, asked: Request, call: Call) -> AsyncGenerator[Chunk]:
        url, body = self._own_post(asked, is_streamed=True)
        priority = asked.wishes.priority
        parts = await self.make_post_request_ollama(url, body, True, call.request_id, priority)
        async for part in parts:
            chunk = native_chunk(part, call, body["model"])
            if chunk is not None:
                yield chunk
