"""Each fault of the simulated Ollama's, as a program sees it that asks it through the client."""

from __future__ import annotations

import pytest

from corral import (
    AsyncClient,
    CallTimeoutError,
    ConnectionFailedError,
    CorralError,
    ResponseError,
    ServerError,
    StreamBrokenError,
)
from service.simulated import Fault, FaultKind, SimulatedServer
from tests.client.test_streams import MESSAGES, read
from tests.support.running import QUICK

HARMLESS = {
    FaultKind.DELAY_HEADERS,
    FaultKind.PACE,
    FaultKind.SPLIT,
    FaultKind.MERGE,
    FaultKind.LONG_LINE,
    FaultKind.UNLOAD_AT_ONCE,
    FaultKind.SEARCH_STALL,
    FaultKind.SEARCH_ERROR,
}
HARMFUL: dict[FaultKind, tuple[type[CorralError], type[CorralError]]] = {
    FaultKind.STALL: (CallTimeoutError, StreamBrokenError),
    FaultKind.ERROR: (ServerError, ServerError),
    FaultKind.ERROR_LINE: (ServerError, StreamBrokenError),
    FaultKind.RUNNER_KILLED: (ServerError, StreamBrokenError),
    FaultKind.NO_DONE: (ConnectionFailedError, StreamBrokenError),
    FaultKind.SILENT_END: (ConnectionFailedError, StreamBrokenError),
    FaultKind.TOKEN_REPEATS: (ConnectionFailedError, StreamBrokenError),
    FaultKind.SEAT_LOST: (ServerError, StreamBrokenError),
    FaultKind.RUNNER_HANGS: (CallTimeoutError, CallTimeoutError),
    FaultKind.RESET: (ConnectionFailedError, StreamBrokenError),
    FaultKind.HANG_UP: (ConnectionFailedError, StreamBrokenError),
    FaultKind.NOT_OLLAMA: (ResponseError, ResponseError),
    FaultKind.LOAD_STALL: (CallTimeoutError, CallTimeoutError),
    FaultKind.LOAD_ERROR: (ServerError, ServerError),
}
"""How a whole reply ends, and how a stream does of which two tokens may have come."""


def fault(kind: FaultKind) -> Fault:
    body = " the" if kind is FaultKind.TOKEN_REPEATS else None
    return Fault(kind=kind, after_tokens=2, seconds=0.01, body=body)


def test_every_fault_is_known_here() -> None:
    # A reply that is only large is no fault to a client; what it does to the service is tried in tests/abuse.
    assert HARMLESS | HARMFUL.keys() | {FaultKind.FLOOD} == set(FaultKind)


@pytest.mark.parametrize("kind", sorted(HARMLESS))
async def test_what_is_only_unusual_is_answered(kind: FaultKind) -> None:
    async with SimulatedServer(QUICK) as ollama, AsyncClient(ollama.url, model="llama3.2") as client:
        plain = await client.chat(messages=MESSAGES, max_tokens=5)
        ollama.arm(fault(kind))
        whole = await client.chat(messages=MESSAGES, max_tokens=5)
        chunks, error = await read(client, max_tokens=5)
    assert error is None
    assert whole["text"] == "".join(chunk["text"] for chunk in chunks)
    if kind is not FaultKind.LONG_LINE:
        assert whole["text"] == plain["text"]


@pytest.mark.parametrize("kind", HARMFUL)
async def test_what_fails_is_an_error_of_the_tree(kind: FaultKind) -> None:
    async with SimulatedServer(QUICK) as ollama:
        # Silence is what some of them are; the others answer at once.
        async with AsyncClient(ollama.url, model="llama3.2", timeout=2) as client:
            client.max_retries = 0
            ollama.arm(fault(kind))
            whole, streamed = HARMFUL[kind]
            with pytest.raises(CorralError) as raised:
                await client.chat(messages=MESSAGES, max_tokens=5)
            assert type(raised.value) is whole
            chunks, error = await read(client, max_tokens=5)
            assert type(error) is streamed
            if isinstance(error, StreamBrokenError):
                assert error.text == "".join(chunk["text"] for chunk in chunks)
        ollama.faults.clear()
