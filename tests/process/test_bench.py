"""What measures the service is right itself: its load generator, its table, the shape of its scenarios."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.bench import scenarios
from tests.bench.load import Connection, LoadError, request_bytes, requests_per_second, send_all
from tests.bench.table import Figure, Row, at_least, at_most, at_most_times, markdown
from tests.support.processes import started

NAMES = [module.name for module in pkgutil.iter_modules(scenarios.__path__)]


class Served:
    """A server that counts what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.port = 0

    async def echo(self, request: web.Request) -> web.Response:
        self.bodies.append((await request.json())["words"])
        return web.json_response({"said": self.bodies[-1]})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b"zero", b"one", b"two"):
            await response.write(piece)
            await asyncio.sleep(0)
        await response.write_eof()
        return response


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    server = Served()
    app = web.Application()
    app.add_routes([web.post("/echo", server.echo), web.get("/stream", server.stream)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


async def test_every_request_is_sent_once_over_all_connections(served: Served) -> None:
    requests = [request_bytes("POST", "/echo", {"words": f"{number}: ä"}) for number in range(100)]
    await asyncio.to_thread(send_all, served.port, requests, connections=7)
    assert sorted(served.bodies) == sorted(f"{number}: ä" for number in range(100))


async def test_the_rate_is_that_of_the_replies(served: Served) -> None:
    request = request_bytes("POST", "/echo", {"words": "x"})
    rate = await asyncio.to_thread(
        requests_per_second, served.port, [request], connections=4, seconds=0.5, warm_up_seconds=0.0
    )
    # Replies that were under way at the end are not counted.
    assert 0 < rate * 0.5 <= len(served.bodies)


async def test_a_stream_is_read_to_its_end(served: Served) -> None:
    def exchange_twice() -> list[bytes]:
        with Connection(served.port) as connection:
            return [connection.exchange(request_bytes("GET", "/stream")) for _ in range(2)]

    for reply in await asyncio.to_thread(exchange_twice):
        assert reply.endswith(b"two\r\n0\r\n\r\n")


async def test_a_refusal_is_no_reply(served: Served) -> None:
    with pytest.raises(LoadError, match="404"):
        await asyncio.to_thread(send_all, served.port, [request_bytes("GET", "/nowhere")] * 3, connections=2)


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_says_what_it_measures_and_measures_it(name: str) -> None:
    module = importlib.import_module(f"{scenarios.__name__}.{name}")
    assert (module.__doc__ or "").splitlines()[0].endswith(".")
    assert inspect.iscoroutinefunction(module.measure)


async def test_an_unknown_scenario_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    async with started("tests.bench", "nothing", folder=tmp_path) as bench:
        assert await bench.ended() == 2
    [line] = bench.errors
    assert all(name in line for name in NAMES)


def test_the_table_tells_what_is_met_and_what_a_commit_took() -> None:
    figures: list[Figure] = [
        at_least("rate", 650.4, 1000.0, 0.65, 0.6, "/s", has_commit=True),
        at_most("memory", 31.0, 30, "kB"),
        at_most_times("slower", 10.0, 20.0, 2.0, 1.5, "/s"),
    ]
    lines = markdown([Row(figure, 0.2512) for figure in figures]).splitlines()[2:]
    assert lines == [
        "| rate | 650 /s | 1,000 /s | 0.65 | ≥ 0.60 | yes | 0.25 ms |",
        "| memory | 31 kB |  |  | ≤ 30 kB | **no** |  |",
        "| slower | 10 /s | 20 /s | 2.00 | ≤ 1.50 | **no** |  |",
    ]
