"""What several tests of the simulated Ollama need: one that serves, and a client for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from service.simulated import RECORDED_MODELS, SimulatedServer, SimulatedSettings

TINY = SimulatedSettings(models=RECORDED_MODELS, max_loaded_models=3)

# Status and message of those rows of the wire contract's error catalogue (3.2) that only a fault can bring about.
CATALOGUE: list[tuple[int, str]] = [
    (400, '{"error":{"code":400,"message":"failed to parse grammar","type":"invalid_request_error"}}'),  # row 19
    (500, "template: :1: unexpected {{end}}"),  # row 20
    (400, "the prompt is longer than the context length currently available to the model; shorten it"),  # row 21
    (400, "embedding contains NaN or Inf values"),  # row 26
    (400, 'do embedding request: Post "http://127.0.0.1:40001/embedding": EOF'),  # row 27
    (503, "server busy, please try again.  maximum pending requests exceeded"),  # row 29
    (499, "request canceled"),  # row 30
    (500, "llama-server reported out-of-memory during startup: cudaMalloc failed: out of memory"),  # row 31
    (500, "llama-server process has terminated: exit status 2: signal: killed"),  # row 32
    (500, "timed out waiting for llama-server to start - "),  # row 33
    (500, "failed to load model: this model may be incompatible with your version of Ollama. Please update"),  # row 34
    (500, "error starting llama-server: fork/exec: llama-server binary not found"),  # row 35
    (500, "'llama3.2-vision' is no longer compatible with this version of Ollama"),  # row 36
    (500, "unexpected server status: llm busy - no slots available"),  # row 37
    (
        500,
        "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
        "check ollama server logs for details",
    ),  # row 38
    (500, "an error was encountered while running the model: CUDA error: an illegal memory access"),  # row 39
    (500, "error reading llama-server response: unexpected EOF"),  # row 41
    (500, 'llama-server returned invalid tool call arguments for "weather": unexpected end of JSON input'),  # row 43
    (403, "ollama cloud is disabled: remote model is unavailable"),  # row 45
    (401, "unauthorized"),  # row 46
    (400, "this server cannot run this remote model"),  # row 47
    (502, "dial tcp: lookup ollama.com: no such host"),  # row 48
    (402, "this model requires a subscription"),  # row 49
    (413, "request too large"),  # row 49
    (429, "too many requests"),  # row 49
    (503, "Server overloaded, please retry shortly (ref: 1)"),  # row 49
]


@asynccontextmanager
async def simulated_ollama(
    settings: SimulatedSettings = TINY,
) -> AsyncIterator[tuple[SimulatedServer, aiohttp.ClientSession]]:
    """A running server, and a session whose addresses begin at it."""
    async with SimulatedServer(settings) as server, aiohttp.ClientSession(server.url) as session:
        yield server, session


def json_lines(body: bytes) -> list[Any]:
    """The objects of an NDJSON body, in which no line may be blank."""
    return [json.loads(line) for line in body.removesuffix(b"\n").split(b"\n")] if body else []


def sse_events(body: bytes) -> list[tuple[str | None, Any]]:
    """The events of an SSE body: the event's name where it has one, and its data, decoded unless it is `[DONE]`."""
    events: list[tuple[str | None, Any]] = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        if not block:
            continue
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        events.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return events
