"""What measures the service is right itself: its load generator, its backend, its table, its scenarios."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.bench import scenarios
from tests.bench.__main__ import main
from tests.bench.instant_backend import Answering
from tests.bench.load import Connection, LoadError, request_bytes, requests_per_second, send_all
from tests.bench.measuring import Bench, by_turns, compare
from tests.bench.processes import HEALTH, cpu_seconds, instant_backend, services
from tests.bench.streams import Spent, figures_by_length
from tests.bench.table import (
    Figure,
    Row,
    added_milliseconds,
    against_bare,
    at_least,
    at_most,
    at_most_times,
    markdown,
)
from tests.support.checkout import ROOT
from tests.support.processes import started

NAMES = [module.name for module in pkgutil.iter_modules(scenarios.__path__)]
LENGTHS = (1, 20, 400)


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


class Recorded(asyncio.Transport):
    """Where the instant backend writes: every write, and after each a mark that the loop has gone on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bytes | None] = []
        self.has_ended = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        piece = bytes(data)
        self.seen.append(piece)
        asyncio.get_running_loop().call_soon(self.seen.append, None)
        if piece.endswith(b"\r\n0\r\n\r\n"):
            self.has_ended.set()

    def is_closing(self) -> bool:
        return False

    def tokens(self) -> list[int]:
        """How many each write has."""
        return [piece.count(b'"done":false') for piece in self.seen if piece is not None]


def chat(tokens: int) -> bytes:
    return request_bytes("POST", "/api/chat", {"model": "llama3.2", "options": {"num_predict": tokens}})


def ask_backend(pause_seconds: float | None, *requests: bytes) -> Recorded:
    recorded = Recorded()
    backend = Answering(pause_seconds)
    backend.connection_made(recorded)
    for request in requests:
        backend.data_received(request)
    return recorded


@pytest.mark.parametrize("pause_seconds", [0.0, 0.001])
@pytest.mark.parametrize("tokens", LENGTHS)
async def test_each_token_is_a_write_in_a_turn_of_its_own(tokens: int, pause_seconds: float) -> None:
    recorded = ask_backend(pause_seconds, chat(tokens))
    await recorded.has_ended.wait()
    assert recorded.tokens() == [1] * tokens + [0]
    # The loop sends together what is written in one turn.
    assert [piece is None for piece in recorded.seen] == [False, True] * (tokens + 1)


async def test_a_pause_comes_before_each_further_token() -> None:
    recorded = ask_backend(3600.0, chat(20))
    for _ in range(100):
        await asyncio.sleep(0)
    assert recorded.tokens() == [1]


async def test_without_a_pace_all_tokens_are_one_write() -> None:
    recorded = ask_backend(None, chat(400), request_bytes("POST", "/api/generate", {"prompt": "x"}))
    assert recorded.tokens() == [400, 20]


@pytest.mark.parametrize("pause_ms", [None, 0, 1])
async def test_a_stream_has_as_many_tokens_as_are_asked_for(tmp_path: Path, pause_ms: float | None) -> None:
    async with instant_backend(tmp_path, pause_ms=pause_ms) as port, aiohttp.ClientSession() as session:
        for tokens in LENGTHS:
            body = {"model": "llama3.2", "options": {"num_predict": tokens}}
            async with session.post(f"http://127.0.0.1:{port}/api/chat", json=body) as response:
                lines = [json.loads(line) async for line in response.content]
            assert [line["done"] for line in lines] == [False] * tokens + [True]
            assert lines[-1]["eval_count"] == tokens
        # The load generator knows where each ends, too: the next request on a connection waits for that.
        await asyncio.to_thread(send_all, port, [chat(tokens) for tokens in LENGTHS] * 4, connections=3)
        async with session.get(f"http://127.0.0.1:{port}/answered") as response:
            assert await response.json() == 5 * len(LENGTHS)


def test_cpu_is_that_of_the_process_its_threads_and_its_ended_children() -> None:
    def used() -> int:
        return round(sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK"))

    before, counted, after = used(), cpu_seconds(os.getpid()), used()
    assert before <= round(counted * os.sysconf("SC_CLK_TCK")) <= after


async def test_cpu_grows_by_what_a_thread_and_a_child_have_used() -> None:
    burned = 0.2
    # Each of the four numbers that are added up is rounded down.
    least = burned - 4 / os.sysconf("SC_CLK_TCK")

    def burn() -> None:
        while time.thread_time() < burned:
            pass

    begun = cpu_seconds(os.getpid())
    await asyncio.to_thread(burn)
    after_thread = cpu_seconds(os.getpid())
    assert after_thread - begun >= least
    code = f"import time\nwhile time.process_time() < {burned}: pass"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True)
    assert cpu_seconds(os.getpid()) - after_thread >= least


async def test_every_second_round_goes_backwards() -> None:
    asked: list[str] = []

    async def first() -> int:
        asked.append("first")
        return len(asked)

    async def second() -> int:
        asked.append("second")
        return len(asked)

    assert await by_turns([first, second], rounds=3) == [[1, 4, 5], [2, 3, 6]]
    assert asked == ["first", "second", "second", "first", "first", "second"]


async def test_two_are_compared_round_by_round() -> None:
    above, below = iter([10.0, 30.0, 80.0]), iter([10.0, 10.0, 20.0])

    async def measured() -> float:
        return next(above)

    async def baseline() -> float:
        return next(below)

    assert await compare(measured, baseline, rounds=3) == (30.0, 10.0, 3.0)


async def test_the_service_of_another_checkout_runs_beside_this_ones(tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "service").mkdir(parents=True)
    (other / "service" / "__init__.py").touch()
    says = "import signal\nprint('It listens on http://127.0.0.1:1', flush=True)\nsignal.pause()\n"
    (other / "service" / "__main__.py").write_text(says)
    async with services(Bench(tmp_path, other)) as running:
        here, there = running
        assert there.port == 1
        with Connection(here.port) as connection:
            assert connection.json(HEALTH)["queue"]


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


async def test_a_scenario_that_takes_no_turns_is_refused_where_turns_are_to_be_taken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await main(["--against", str(ROOT), "claim_cost"]) == 2
    known = "conversations, drop_in, polling, submitting, whole_job_rate, whole_job_time"
    assert capsys.readouterr().err.endswith(f": claim_cost; there are: {known}\n")


async def test_a_folder_without_a_service_is_nothing_to_measure_against(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        await main(["--against", str(tmp_path)])
    assert capsys.readouterr().err.endswith(f"no service in {tmp_path}\n")


async def test_help_names_every_scenario_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        await main(["--help"])
    said = capsys.readouterr().out
    assert "--against DIR" in said
    assert all(f"\n  {name}: " in said for name in NAMES)


def test_what_a_stream_and_a_token_cost_is_told_beside_the_relays() -> None:
    def costs(stream: float, token: float) -> list[dict[int, Spent]]:
        """One round."""
        return [{tokens: Spent(1000 / tokens, stream + (tokens - 1) * token) for tokens in LENGTHS}]

    figures = figures_by_length("streams", [costs(200, 20), costs(160, 16), costs(320, 24), costs(400, 30)])
    assert [(figure.measured, figure.baseline, figure.ratio) for figure in figures[6:]] == [
        ("320 µs", "200 µs", "1.60, 2.00"),
        ("320 µs", "400 µs", "0.800"),
        ("24.0 µs", "20.0 µs", "1.20, 1.50"),
        ("24.0 µs", "30.0 µs", "0.800"),
        ("24.0 µs", "20.0 µs", "1.20, 1.50"),
        ("24.0 µs", "30.0 µs", "0.800"),
    ]
    assert [figure.measured for figure in figures[:6:2]] == ["1,000 /s", "50.0 /s", "2.50 /s"]


def test_a_rate_stands_beside_both_baselines_and_the_other_checkouts() -> None:
    bare, on_uvloop, here, there = (
        [100.0, 200.0, 100.0],
        [200.0, 400.0, 200.0],
        [60.0, 120.0, 70.0],
        [60.0, 110.0, 50.0],
    )
    [figure] = against_bare("rate", [bare, on_uvloop, here], 0.65, "/s")
    assert figure == ("rate", "70.0 /s", "100 /s", "0.60, 0.30", "≥ 0.65", False, False)
    [_, beside] = against_bare("rate", [bare, on_uvloop, here, there], None, "/s")
    assert beside[1:6] == ("70.0 /s", "60.0 /s", "1.091", "", None)


def test_added_time_stands_beside_the_direct_call_and_the_other_checkouts() -> None:
    [added, beside] = added_milliseconds("job", [1.0, 1.0, 4.0], [[2.0, 3.0, 9.0], [4.0, 4.0, 4.0]], 2.0)
    assert added[1:6] == ("3.00 ms", "1.00 ms", "+2.00 ms", "≤ +2 ms", True)
    assert beside[1:6] == ("3.00 ms", "4.00 ms", "0.750", "", None)


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
