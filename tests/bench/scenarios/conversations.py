"""Bodies of 32 KiB, as conversations have them: submissions, and chats that are streamed, at 64 connections."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from tests.bench.load import request_bytes, requests_per_second, send_all
from tests.bench.measuring import ROUND_SECONDS, Bench, by_turns, in_thread
from tests.bench.processes import ROOMY, echo, services
from tests.bench.streams import CALLERS, Asked, fronts, in_one_write
from tests.bench.table import Figure, against_bare

BY_TURNS = True

SIZE = 32 * 1024
_SENTENCE = "The sky is blue during the day, since air scatters blue light more than red. "
_ROLES = ("user", "assistant")


async def measure(bench: Bench) -> list[Figure]:
    """Against the same body sent to the echo, and against a bare relay."""
    return [*await _submissions(bench), *await _chats(bench)]


async def _submissions(bench: Bench) -> list[Figure]:
    rate = partial(requests_per_second, connections=CALLERS, seconds=ROUND_SECONDS)
    with bench.new_folder() as folder:
        async with echo(folder) as bare, services(bench, **ROOMY) as running:
            asked = [(server, "/echo") for server in bare] + [(server, "/api/v1/prompt") for server in running]
            body = {"model": "llama3.2", "messages": _messages()}
            rates = await by_turns(
                [in_thread(rate, server.port, [request_bytes("POST", path, body)]) for server, path in asked]
            )
    what = f"submit messages of {SIZE // 1024} KiB, {CALLERS} connections; against a bare JSON echo"
    return against_bare(what, rates, None, "/s", has_commit=True)


async def _chats(bench: Bench) -> list[Figure]:
    async with fronts(bench, pause_ms=None) as before:
        return await in_one_write(
            f"/api/chat with {SIZE // 1024} KiB, streams", before, Asked(_send, _send), wanted=None
        )


def _send(port: int, tokens: int, streams: int) -> float:
    body = {"model": "llama3.2", "messages": _messages(), "stream": True, "options": {"num_predict": tokens}}
    return send_all(port, [request_bytes("POST", "/api/chat", body)] * streams, connections=CALLERS)


def _messages() -> Sequence[dict[str, Any]]:
    """A conversation of so many bytes, in messages of a few sentences."""
    text = _SENTENCE * 6
    return [{"role": _ROLES[number % 2], "content": text} for number in range(SIZE // (len(text) + 40))]
