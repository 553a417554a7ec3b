"""One reader a wire format: what a reply of Ollama's says, found in its bytes while they pass."""

from __future__ import annotations

from collections.abc import Callable

from service.backend.protocols import embeddings, messages, ndjson, openai, responses
from service.backend.protocols.reading import Ending, Reader
from service.backend.protocols.whole import WholeReader

__all__ = ["ENDPOINTS", "Ending", "Reader", "reader_for"]

_STREAMED: dict[str, Callable[[], Reader]] = {
    "/api/generate": ndjson.GenerateReader,
    "/api/chat": ndjson.ChatReader,
    "/v1/chat/completions": openai.ChatReader,
    "/v1/completions": openai.CompletionsReader,
    "/v1/responses": responses.ResponsesReader,
    "/v1/messages": messages.MessagesReader,
}

_WHOLE: dict[str, Callable[[], Reader]] = {
    "/api/generate": lambda: WholeReader(ndjson.read_generate),
    "/api/chat": lambda: WholeReader(ndjson.read_chat),
    "/v1/chat/completions": lambda: WholeReader(openai.read_chat),
    "/v1/completions": lambda: WholeReader(openai.read_completion),
    "/v1/responses": lambda: WholeReader(responses.read_response),
    "/v1/messages": lambda: WholeReader(messages.read_message),
    "/api/embed": lambda: embeddings.EmbeddingsReader(embeddings.EMBED),
    "/api/embeddings": lambda: embeddings.EmbeddingsReader(embeddings.LEGACY),
    "/v1/embeddings": lambda: embeddings.EmbeddingsReader(embeddings.OPENAI),
}

ENDPOINTS = frozenset(_WHOLE)
"""The paths whose replies can be read."""


def reader_for(endpoint: str, *, streamed: bool) -> Reader:
    """A new reader for one reply of status 200; ``streamed`` says what the request asked for.

    The reply to a load or unload request is one object although a stream was asked for: the reader of streams takes
    that as well. Embeddings are never streamed. Raises KeyError for a path that is not in ``ENDPOINTS``.
    """
    make = _STREAMED.get(endpoint) if streamed else None
    return (make or _WHOLE[endpoint])()
