"""CORRAL_DEBUG: what the library does, on stderr."""

from __future__ import annotations

import logging
import re

import pytest

from corral.circuit import Circuit
from corral.errors import ConnectionFailedError
from corral.settings import Settings
from tests.support.programs import program
from tests.support.running import service_in_process

PROGRAM = """
from corral import CorralError
client, dead = Client(url, api_key="sk-secret"), Client("http://127.0.0.1:9", api_key="sk-secret")
dead.initial_retry_delay, dead.failure_threshold, dead.circuit_timeout = 0.001, 2, 600
client.generate(prompt="short", request_id="mine")
for _ in range(2):
    try:
        dead.generate(prompt="short", request_id="other")
    except CorralError as error:
        says(type(error).__name__)
    dead.circuit_timeout = 0
"""
LINES = [
    "[mine] who serves: corral",
    "[mine] attempt 1: POST /api/v1/prompt",
    "[mine] answered after 1 attempts",
    "[other] attempt 1 failed, again in 0.00 s: nobody answers",
    "[other] the circuit is OPEN for 600 s, after 2 failures",
    "[other] failed after 2 attempts: nobody answers",
    "[other] the circuit is HALF-OPEN: this is the trial",
    "[other] the circuit is OPEN for 0 s, after 3 failures",
]


async def test_with_corral_debug_each_step_is_said_on_stderr_and_never_the_key() -> None:
    async with service_in_process() as service, program(PROGRAM, service.url, CORRAL_DEBUG="1") as running:
        status, said = await running.ends()
    assert status == 0, said
    places = [said.find(line) for line in LINES]
    assert -1 not in places, said
    assert places == sorted(places), said
    assert "secret" not in said
    lines = [line for line in said.splitlines() if "DEBUG corral:" in line]
    assert all(re.search(r"corral: \[(mine|other)\] ", line) for line in lines)


def test_each_change_of_the_circuit_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(lambda: None)
    settings.failure_threshold, settings.circuit_timeout = 1, 30
    now = 0.0
    circuit = Circuit(settings, lambda: now)
    with caplog.at_level(logging.DEBUG, "corral"):
        circuit.begin("a").succeeded()
        circuit.begin("b").ended_by(ConnectionFailedError())
        now = 30.0
        circuit.begin("c").succeeded()
    assert [record.getMessage() for record in caplog.records] == [
        "[b] the circuit is OPEN for 30 s, after 1 failures",
        "[c] the circuit is HALF-OPEN: this is the trial",
        "[c] the circuit is CLOSED",
    ]
