"""How fast ``corral batch`` asks many prompts, and what a line costs it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ollama

from tests.bench.load import LoadError
from tests.bench.measuring import Bench, by_turns, compared, in_thread
from tests.bench.processes import ROOMY, instant_backend
from tests.bench.table import Figure, at_least
from tests.support.checkout import search_path
from tests.support.processes import running_service, simulated_process

MODEL = "llama3.2"
PROMPTS, SEATS, ROUNDS = 2_000, 5, 3
CPU_MS = 10.0


class Spent(NamedTuple):
    """What a batch took, its program's start and end included."""

    lines_per_second: float
    cpu_ms_a_line: float


async def measure(bench: Bench) -> list[Figure]:
    """A batch through Corral against five threads of Ollama's own client that ask the same Ollama directly; the same
    with a backend that costs nothing.
    """
    spent: list[Spent] = []
    with bench.new_folder() as folder:
        source = folder / "prompts.jsonl"
        source.write_text("".join(json.dumps(f"prompt {number}") + "\n" for number in range(PROMPTS)))
        batch = partial(_batch, source, spent)
        paced = ("--tokens", "20", "--token-seconds", "0.005", "--load-seconds", "0", "--parallel", str(SEATS))
        async with (
            simulated_process(folder, *paced) as slow,
            running_service(folder, OLLAMA_URL=slow, **ROOMY) as service,
        ):
            rates, below = await by_turns([in_thread(batch, service.url), in_thread(threads, slow)], rounds=ROUNDS)
        figures = _figures("20 tokens of 5 ms", rates, below, spent, wanted=True)
        spent.clear()
        free = folder / "free"
        free.mkdir()
        async with (
            instant_backend(free) as port,
            running_service(free, OLLAMA_URL=f"http://127.0.0.1:{port}", **ROOMY) as service,
        ):
            # That backend answers in streams alone.
            direct = in_thread(partial(threads, is_streamed=True), f"http://127.0.0.1:{port}")
            rates, below = await by_turns([in_thread(batch, service.url), direct], rounds=ROUNDS)
        return [*figures, *_figures("a backend that costs nothing", rates, below, spent, wanted=False)]


def _figures(backend: str, rates: list[float], below: list[float], spent: list[Spent], *, wanted: bool) -> list[Figure]:
    rate, baseline, ratio = compared(rates, below)
    what = f"batch of {PROMPTS:,} prompts, {backend}; against {SEATS} threads of Ollama's own client, directly"
    cpu = sorted(one.cpu_ms_a_line for one in spent)[len(spent) // 2]
    cost = Figure(
        "… its processor time a line", f"{cpu:.2f} ms", "", "", f"≤ {CPU_MS:g} ms" if wanted else "",
        cpu <= CPU_MS if wanted else None,
    )  # fmt: skip
    if wanted:
        return [at_least(what, rate, baseline, ratio, 1.0, "/s"), cost]
    return [Figure(what, f"{rate:,.0f} /s", f"{baseline:,.0f} /s", f"{ratio:.2f}", "", None), cost]


def _batch(source: Path, spent: list[Spent], url: str) -> float:
    """Lines a second."""
    output = source.with_name(f"answers-{time.monotonic_ns()}.jsonl")
    command = [sys.executable, "-m", "corral", "batch", str(source), "-o", str(output), "-m", MODEL, "--url", url]
    environ = {**os.environ, "PYTHONPATH": search_path()}
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--progress", "none"], env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise LoadError(f"the batch ended with {process.returncode}")
    spent.append(Spent(PROMPTS / seconds, (usage.ru_utime + usage.ru_stime) * 1000 / PROMPTS))
    return PROMPTS / seconds


def threads(url: str, *, is_streamed: bool = False) -> float:
    """The same by a loop over Ollama's own client, in five threads."""
    prompts: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for number in range(PROMPTS):
        prompts.put(f"prompt {number}")

    def work() -> None:
        with ollama.Client(url) as client:
            while (prompt := prompts.get()) is not None:
                messages = [{"role": "user", "content": prompt}]
                if is_streamed:
                    deque(client.chat(MODEL, messages, stream=True), maxlen=0)
                else:
                    client.chat(MODEL, messages)

    workers = [threading.Thread(target=work) for _ in range(SEATS)]
    for _ in workers:
        prompts.put(None)
    begun = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return PROMPTS / (time.perf_counter() - begun)
