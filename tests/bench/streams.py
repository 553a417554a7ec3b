"""Streams of tokens that 64 callers send for: how many a second a server carries, and what CPU they cost it.

What is measured is the service and, as its baseline, a bare relay of the same backend's streams.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from tests.bench.instant_backend import TOKENS
from tests.bench.measuring import Bench, by_turns, in_thread
from tests.bench.processes import ROOMY, Bare, Server, backend_settings, cpu_seconds, instant_backend, relay, services
from tests.bench.table import Figure, against_bare

CALLERS = 64
IN_ONE_WRITE = {TOKENS: 4_000}
TOKEN_BY_TOKEN = {1: 2_000, 20: 1_000, 400: 128}
"""By tokens, how many such streams one round has: a second's worth, more or less, of a machine that is quiet."""
PACES = {"each token by itself": 0.0, "tokens 1 ms apart": 1.0}
"""Milliseconds between two tokens."""

_LEAST_MICROSECONDS = 0.01

Send = Callable[[int, int, int], float]
"""Given a port, tokens and streams: sends for so many streams of so many tokens; the seconds until all have ended."""


class Asked(NamedTuple):
    """What is asked of the service, and what of the relay for the same streams."""

    service: Send
    relay: Send


class Fronts(NamedTuple):
    """What stands before one backend: the bare relay, and the service (and the other checkout's, if there is one)."""

    bare: Bare
    services: list[Server]


class Spent(NamedTuple):
    """What the streams of one length took in one round."""

    per_second: float
    cpu_microseconds: float
    """Of the server's process, for one stream."""


@asynccontextmanager
async def fronts(bench: Bench, *, pause_ms: float | None) -> AsyncIterator[Fronts]:
    """They run until the end of the block; None: the backend writes all of a stream at once."""
    with bench.new_folder() as folder:
        async with (
            instant_backend(folder, pause_ms=pause_ms) as backend,
            relay(folder, backend) as bare,
            services(bench, **ROOMY, **backend_settings(backend, seats=CALLERS)) as running,
        ):
            yield Fronts(bare, running)


async def in_one_write(what: str, before: Fronts, asked: Asked, wanted: float | None) -> list[Figure]:
    """The rate, of which so much of the relay's is wanted (None: nothing), and the CPU of one, of streams that the
    backend writes at once.
    """
    sides = await _spent_by_turns(before, asked, IN_ONE_WRITE)
    [(tokens, _)] = IN_ONE_WRITE.items()
    return [
        *against_bare(
            f"{what} of {tokens} tokens in one write, {CALLERS} connections; against a bare relay",
            [[spent[tokens].per_second for spent in side] for side in sides],
            wanted,
            "/s",
            has_commit=True,
        ),
        *against_bare(
            f"{what} in one write: CPU of one; against the relay's",
            [[spent[tokens].cpu_microseconds for spent in side] for side in sides],
            None,
            "µs",
        ),
    ]


async def token_by_token(bench: Bench, what: str, asked: Asked) -> list[Figure]:
    """The same for streams of several lengths whose tokens come one by one, as a model writes them."""
    figures = []
    for pace, pause_ms in PACES.items():
        async with fronts(bench, pause_ms=pause_ms) as before:
            sides = await _spent_by_turns(before, asked, TOKEN_BY_TOKEN)
        figures += figures_by_length(f"{what}, {pace}", sides)
    return figures


def figures_by_length(what: str, sides: Sequence[Sequence[Mapping[int, Spent]]]) -> list[Figure]:
    """Rates, and the CPU of the shortest stream and of each token that a longer one has more."""
    shortest, *longer = TOKEN_BY_TOKEN
    figures = []
    for tokens in TOKEN_BY_TOKEN:
        rates = [[spent[tokens].per_second for spent in side] for side in sides]
        of_length = f"{what}: {tokens} token{'s' if tokens > 1 else ''}, {CALLERS} connections; against a bare relay"
        figures += against_bare(of_length, rates, None, "/s", has_commit=True)
    costs = [[spent[shortest].cpu_microseconds for spent in side] for side in sides]
    figures += against_bare(f"{what}: CPU of a stream of one token; against the relay's", costs, None, "µs")
    for tokens in longer:
        costs = [[_further_token(spent, shortest, tokens) for spent in side] for side in sides]
        of_token = f"{what}: CPU of each further token, up to {tokens}; against the relay's"
        figures += against_bare(of_token, costs, None, "µs")
    return figures


def _further_token(spent: Mapping[int, Spent], shortest: int, tokens: int) -> float:
    each = (spent[tokens].cpu_microseconds - spent[shortest].cpu_microseconds) / (tokens - shortest)
    # What presses on a machine may cost the shortest streams more than the tokens do; nothing is divided by that.
    return max(each, _LEAST_MICROSECONDS)


async def _spent_by_turns(before: Fronts, asked: Asked, streams: Mapping[int, int]) -> list[list[dict[int, Spent]]]:
    """By tokens, round by round, in the order that ``against_bare`` wants."""
    works = [(server, asked.relay) for server in before.bare] + [(server, asked.service) for server in before.services]
    return await by_turns([in_thread(_spent, server, send, streams) for server, send in works])


def _spent(server: Server, send: Send, streams: Mapping[int, int]) -> dict[int, Spent]:
    taken = {}
    for tokens, number in streams.items():
        before = cpu_seconds(server.pid)
        seconds = send(server.port, tokens, number)
        cpu = cpu_seconds(server.pid) - before
        taken[tokens] = Spent(number / seconds, cpu / number * 1e6)
    return taken
