"""Jobs stored each second: POST at 64 connections, every answer after its commit, no backend running."""

from __future__ import annotations

from functools import partial

from tests.bench.load import request_bytes, requests_per_second
from tests.bench.measuring import ROUND_SECONDS, Bench, compare_with, in_thread
from tests.bench.processes import ROOMY, echo
from tests.bench.table import Figure, against_bare
from tests.support.processes import running_service

CONNECTIONS = 64
BODY = {"prompt": "Explain in three sentences why the sky is blue during the day and red in the evening."}


async def measure(bench: Bench) -> list[Figure]:
    """Against the same body sent to the echo."""
    rate = partial(requests_per_second, connections=CONNECTIONS, seconds=ROUND_SECONDS)
    with bench.new_folder() as folder:
        async with echo(folder) as echo_ports, running_service(folder, **ROOMY) as service:
            compared = await compare_with(
                in_thread(rate, service.port, [request_bytes("POST", "/api/v1/prompt", BODY)]),
                [in_thread(rate, port, [request_bytes("POST", "/echo", BODY)]) for port in echo_ports],
            )
    what = "submit, 64 connections; against a bare JSON echo"
    return against_bare(what, compared, 0.60, "/s", has_commit=True)
