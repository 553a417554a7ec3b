"""Jobs stored each second: POST at 64 connections, every answer after its commit, no backend running."""

from __future__ import annotations

from functools import partial

from tests.bench.load import request_bytes, requests_per_second
from tests.bench.measuring import ROUND_SECONDS, Bench, by_turns, in_thread
from tests.bench.processes import ROOMY, echo, services
from tests.bench.table import Figure, against_bare

BY_TURNS = True

CONNECTIONS = 64
BODY = {"prompt": "Explain in three sentences why the sky is blue during the day and red in the evening."}


async def measure(bench: Bench) -> list[Figure]:
    """Against the same body sent to the echo."""
    rate = partial(requests_per_second, connections=CONNECTIONS, seconds=ROUND_SECONDS)
    with bench.new_folder() as folder:
        async with echo(folder) as bare, services(bench, **ROOMY) as running:
            asked = [(server, "/echo") for server in bare] + [(server, "/api/v1/prompt") for server in running]
            rates = await by_turns(
                [in_thread(rate, server.port, [request_bytes("POST", path, BODY)]) for server, path in asked]
            )
    what = "submit, 64 connections; against a bare JSON echo"
    return against_bare(what, rates, 0.60, "/s", has_commit=True)
