"""The output of a finished job as JSON; where it is long, it is read from the store while it is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web

from service.api.http.json_replies import json_reply
from service.api.http.piecewise import Pieces, object_in_pieces, piecewise_json, text_in_pieces
from service.job import TEXT, THINKING, TOOL_CALLS, Result
from service.store.long_texts import StoredResult, StoredText


async def result_reply(
    request: web.Request,
    fields_of: Callable[[Result | None, str], Mapping[str, object]],
    prompt: StoredText | None,
    output: StoredResult | None,
    name: str,
    pieces_of: Callable[[StoredResult], Pieces],
) -> web.StreamResponse:
    """The answer with these fields. ``name`` is that of the output, which ``pieces_of`` writes where it is long."""
    if (output is None or output.is_short) and (prompt is None or prompt.is_short):
        result = await output.whole() if output is not None else None
        return json_reply(request, fields_of(result, await prompt.whole() if prompt is not None else ""))
    long: dict[str, Pieces] = {}
    size = 0
    if prompt is not None:
        long["prompt"] = text_in_pieces(prompt)
        size += prompt.size
    if output is not None:
        long[name] = pieces_of(output)
        size += output.size
    return await piecewise_json(request, object_in_pieces(fields_of(None, ""), long), size)


async def text_of(result: StoredResult) -> Pieces:
    """What the model has written, as a JSON string."""
    async for piece in _string(result, TEXT, set()):
        yield piece


async def output_of(result: StoredResult) -> Pieces:
    """The same, and behind it the members ``thinking`` and ``tool_calls``, where there are such."""
    kinds: set[str] = set()
    async for piece in _string(result, TEXT, kinds):
        yield piece
    if THINKING in kinds:
        yield b',"thinking":'
        async for piece in _string(result, THINKING, kinds):
            yield piece
    if TOOL_CALLS in kinds:
        mark = b',"tool_calls":['
        async for found in result.pieces():
            if found.kind == TOOL_CALLS:
                # Each is an array of calls.
                yield mark + found.data.strip()[1:-1].encode("utf-8", "replace")
                mark = b","
        yield b"]"


async def _string(result: StoredResult, kind: str, kinds: set[str]) -> Pieces:
    """All of one kind, as it is written in the store already; ``kinds`` learns which others there are."""
    yield b'"'
    async for piece in result.pieces():
        kinds.add(piece.kind)
        if piece.kind == kind:
            yield piece.raw.encode("utf-8", "replace")
    yield b'"'
