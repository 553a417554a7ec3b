"""The client for programs without an event loop: an AsyncClient in a loop of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Any, Literal, overload

import httpx2

from corral.asking import Flight
from corral.async_client import AsyncClient
from corral.call import Call
from corral.errors import ConfigurationError, CorralError
from corral.job import Job
from corral.logs import log
from corral.portal import Portal, Started, SyncStream
from corral.replies import native_answer, native_chunk
from corral.requests import Request, chat_request, chosen_model, generate_request
from corral.shapes import Answer, Chunk, Embeddings, JobStatus, Priority
from corral.surface import END, ENDPOINT_TYPES, TEST_PROMPT, Items, Surface, require_in_flight

_OF_FUTURES = ("chat", "generate", "completions")


class Client(Surface):
    """Asks Corral, or a bare Ollama. Any number of threads may use it, also where an event loop runs, and after a fork.

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
        self._client = AsyncClient(
            base_url,
            api_key=api_key,
            model=model,
            timeout=timeout,
            headers=headers,
            metadata=metadata,
            resources=resources,
            transport=transport,
        )
        super().__init__(self._client._parts)
        self._portal = Portal(self._parts.aclose)

    # Asking

    def chat(
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
        return self._answer(asked, request_id)

    def generate(
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
        return self._answer(asked, request_id)

    def completions(
        self,
        model: str | None = None,
        prompt: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        request_id: str | None = None,
        **kwargs: Any,
    ) -> Answer:
        """The same as :meth:`generate`."""
        return self.generate(model, prompt, max_tokens, temperature, request_id, **kwargs)

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
    ) -> Iterator[Chunk]:
        """The answer to a conversation while it is written. Raises StreamBrokenError where it cannot be whole."""
        chosen = self._model_of(chosen_model(model_name, model))
        asked = chat_request(chosen, messages, max_tokens, temperature, options, kwargs)
        call = self._call_for(asked, request_id)
        if self._has_own_post(Client):
            return self._chunks_by_own_post(asked, call)
        return SyncStream(self._portal, self._parts.asking.chunks(asked, call))

    def embed(
        self,
        input: str | Sequence[str],
        model: str | None = None,
        *,
        request_id: str | None = None,
        **kwargs: Any,
    ) -> Embeddings:
        """One vector for each text."""
        return self._portal.call(partial(self._client.embed, input, model, request_id=request_id, **kwargs))

    def __call__(self, endpoint_type: str, **kwargs: Any) -> Any:
        """``chat``, ``stream_chat``, ``generate``, ``completions`` or ``embed``, by its name."""
        if endpoint_type not in ENDPOINT_TYPES:
            raise ConfigurationError(f"endpoint_type = {endpoint_type!r}: give one of {', '.join(ENDPOINT_TYPES)}")
        if endpoint_type == "embed":
            kwargs.setdefault("input", None)
        return getattr(self, endpoint_type)(**kwargs)

    def make_post_request_ollama(
        self,
        endpoint_url: str,
        data: Mapping[str, Any],
        stream: bool = False,
        request_id: str | None = None,
        priority: Priority = None,
    ) -> Any:
        """The server's own JSON; with ``stream`` an iterator of its objects. ``endpoint_url`` is of this server."""
        path = self._parts.address.path_of(endpoint_url)
        call = self._new_call(request_id, priority)
        if stream:
            return SyncStream(self._portal, self._parts.asking.post_stream(path, data, call))
        return self._portal.call(self._parts.asking.post, path, data, call)

    def submit_future(self, endpoint_type: str = "chat", /, **kwargs: Any) -> Future[Answer]:
        """The answer of ``chat``, ``generate`` or ``completions`` when it is there. Cancelling it cancels the call."""
        if endpoint_type not in _OF_FUTURES:
            raise ConfigurationError(f"endpoint_type = {endpoint_type!r}: give one of {', '.join(_OF_FUTURES)}")
        if self._has_own_post(Client):
            own = ThreadPoolExecutor(max_workers=1)
            future: Future[Answer] = own.submit(self, endpoint_type, **kwargs)
            own.shutdown(wait=False)
            return future
        return self._portal.start(partial(self._client, endpoint_type, **kwargs)).future

    # Jobs

    def submit(
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
    ) -> Job:
        """A job, once it is on disk. ``not_before`` is a datetime, RFC 3339 or seconds since the epoch."""
        submitted = partial(
            self._client.submit,
            prompt,
            messages=messages,
            model=model,
            priority=priority,
            max_tokens=max_tokens,
            temperature=temperature,
            options=options,
            system=system,
            format=format,
            images=images,
            think=think,
            keep_alive=keep_alive,
            tools=tools,
            not_before=not_before,
            expires_in_seconds=expires_in_seconds,
            request_id=request_id,
            idempotency_key=idempotency_key,
        )
        return Job(self._portal.call(submitted), self._portal)

    def job(self, job_id: str) -> Job:
        """A job whose id was written down; nothing is asked yet."""
        return Job(self._client.job(job_id), self._portal)

    def jobs(
        self, *, status: str | None = None, model: str | None = None, text: str | None = None
    ) -> Iterator[JobStatus]:
        """The jobs that the caller may see, newest first; ``text`` is looked for in their prompts."""
        return SyncStream(self._portal, self._client.jobs(status=status, model=model, text=text))

    def cancel_all(
        self, *, status: str | Sequence[str] | None = None, model: str | None = None, everybody: bool = False
    ) -> int:
        """Cancel the caller's own unfinished jobs; with ``everybody`` all that it may see. How many they were."""
        return self._portal.call(partial(self._client.cancel_all, status=status, model=model, everybody=everybody))

    @overload
    def map(
        self,
        prompts: Iterable[str | Mapping[str, Any]],
        *,
        in_flight: int = 32,
        return_exceptions: Literal[False] = False,
        **shared: Any,
    ) -> Iterator[Answer]: ...
    @overload
    def map(
        self,
        prompts: Iterable[str | Mapping[str, Any]],
        *,
        in_flight: int = 32,
        return_exceptions: bool,
        **shared: Any,
    ) -> Iterator[Answer | Exception]: ...
    def map(
        self,
        prompts: Iterable[str | Mapping[str, Any]],
        *,
        in_flight: int = 32,
        return_exceptions: bool = False,
        **shared: Any,
    ) -> Iterator[Any]:
        """The answers, in the order of the prompts, of which at most ``in_flight`` are taken in advance."""
        require_in_flight(in_flight)
        self._parts.require_open()
        return self._mapped(Items(prompts), in_flight, return_exceptions, shared)

    # Others

    def list_models(self) -> list[dict[str, Any]]:
        """The models that are installed, as Ollama lists them."""
        return self._portal.call(self._client.list_models)

    def create_ollama_endpoint_handler(self, endpoint_url: str | None = None) -> Callable[..., Awaitable[Answer]]:
        """An ``async`` function of a prompt and the keywords of :meth:`generate`, for any event loop."""
        self._require_own(endpoint_url)

        async def handler(prompt: str, **kwargs: Any) -> Answer:
            return await asyncio.wrap_future(self.submit_future("generate", prompt=prompt, **kwargs))

        return handler

    def test_ollama_endpoint(self, endpoint_url: str | None = None) -> bool:
        """Whether the default model answers; why not, is logged. Raises ConfigurationError, as all others do."""
        self._require_own(endpoint_url)
        try:
            return bool(self.generate(prompt=TEST_PROMPT)["text"])
        except ConfigurationError:
            raise
        except CorralError as error:
            log.warning("[%s] the test of %s failed: %s", error.request_id, self.base_url, error)
            return False

    def close(self) -> None:
        """Call off what is under way, and close the connections; a closed client raises ConfigurationError."""
        self._parts.is_closed = True
        self._portal.stop()
        self._portal.join()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Within

    def _answer(self, asked: Request, request_id: str | None) -> Answer:
        call = self._call_for(asked, request_id)
        if not self._has_own_post(Client):
            return self._portal.call(self._parts.asking.answer, asked, call)
        url, body = self._own_post(asked, is_streamed=False)
        priority = asked.wishes.priority
        reply = self.make_post_request_ollama(url, body, request_id=call.request_id, priority=priority)
        return native_answer(reply, call, body["model"])

    def _chunks_by_own_post(self, asked: Request, call: Call) -> Iterator[Chunk]:
        url, body = self._own_post(asked, is_streamed=True)
        priority = asked.wishes.priority
        for part in self.make_post_request_ollama(url, body, True, call.request_id, priority):
            chunk = native_chunk(part, call, body["model"])
            if chunk is not None:
                yield chunk

    def _mapped(
        self,
        items: Items[str | Mapping[str, Any]],
        in_flight: int,
        return_exceptions: bool,
        shared: Mapping[str, Any],
    ) -> Iterator[Any]:
        flight = Flight()
        pending: deque[Started[Answer]] = deque()
        try:
            while True:
                while len(pending) < in_flight and (item := items.take()) is not END:
                    pending.append(self._begun(item, shared, flight))
                if not pending:
                    items.end()
                    return
                self._parts.require_open()
                try:
                    answer: Answer | Exception = self._portal.outcome(pending[0], *pending)
                except Exception as error:
                    if not return_exceptions or self._parts.is_closed:
                        raise
                    answer = error
                pending.popleft()
                yield answer
        finally:
            self._portal.call_off(pending)

    def _begun(self, item: str | Mapping[str, Any], shared: Mapping[str, Any], flight: Flight) -> Started[Answer]:
        try:
            asked, request_id = self._item_request(item, shared)
            if self._has_own_post(Client):
                return self._portal.start(asyncio.sleep, 0, self._answer(asked, request_id))
            return self._portal.start(self._parts.asking.item, asked, self._call_for(asked, request_id), flight)
        except Exception as error:
            failed: Started[Answer] = Started(Future(), Event())
            failed.future.set_exception(error)
            failed.ended.set()
            return failed
