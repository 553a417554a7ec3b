"""Threads, loops and processes: a client may be used from all of them, and lets its program end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from corral import AsyncClient, Client, ConfigurationError
from service.simulated import Fault, FaultKind, SimulatedServer
from tests.client.test_jobs import ends
from tests.support import programs
from tests.support.running import QUICK, RunningService, service_in_process

PRELUDE = """
import concurrent.futures, multiprocessing
from corral import CorralError
messages = [{"role": "user", "content": "Why?"}]
"""


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process() as running:
        yield running


async def run(program: str, url: str, *, is_interrupted: bool = False, service: RunningService | None = None) -> str:
    """What a program says that ends well, with every warning an error; it is interrupted once its call is stalled."""
    async with programs.program(PRELUDE + textwrap.dedent(program), url) as running:
        if is_interrupted and service is not None:
            await service.ollama.observations.until(lambda seen: seen.stalled == 1)
            running.interrupt()
        status, said = await running.ends()
    assert status == 0, said
    return said.strip()


async def all_that_is_said(process: asyncio.subprocess.Process) -> str:
    """Until it ends; one that hangs is killed, since nobody else would do it."""
    try:
        said, _ = await asyncio.wait_for(process.communicate(), 60)
    except TimeoutError:
        process.kill()
        raise
    return said.decode().strip()


async def test_one_client_is_used_by_many_threads(service: RunningService) -> None:
    program = """
    with Client(url) as client:
        client.max_concurrent_requests = 8
        with concurrent.futures.ThreadPoolExecutor(20) as threads:
            answers = list(threads.map(lambda n: client.generate(prompt=f"{n}", max_tokens=2)["text"], range(60)))
        assert len(answers) == 60 and all(answers)
        stats = client.usage_stats
        assert stats["total_requests"] == stats["successful_requests"] == 60, stats
    print("done")
    """
    assert await run(program, service.url) == "done"


async def test_it_works_where_a_loop_runs_and_under_one_loop_after_another(service: RunningService) -> None:
    program = """
    client, other = Client(url), AsyncClient(url)
    async def cell():
        # As in a notebook: the call holds the loop up, and nothing else.
        text = client.generate(prompt="hello", max_tokens=2)["text"]
        handler = client.create_ollama_endpoint_handler()
        more = await asyncio.gather(*(handler("hello", max_tokens=2) for _ in range(3)))
        assert all(answer["text"] for answer in more)
        return text, (await other.generate(prompt="hello", max_tokens=2))["text"]
    print(all(asyncio.run(cell())), all(asyncio.run(cell())))
    async def stream():
        return [chunk["text"] async for chunk in other.stream_chat(messages=messages)]
    assert asyncio.run(stream()) and asyncio.run(stream())
    client.close()
    """
    assert await run(program, service.url) == "True True"


@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_a_pool_of_processes_uses_it(service: RunningService, method: str, tmp_path: Path) -> None:
    program = """
    from corral import Client, NotFoundError
    import multiprocessing, sys, concurrent.futures
    client = Client(sys.argv[1])

    def ask(number):
        if number == 3:
            client.generate(model="nosuch", prompt="hello")
        return client.generate(prompt=f"{number}", max_tokens=2)["text"]

    if __name__ == "__main__":
        client.generate(prompt="before", max_tokens=2)
        context = multiprocessing.get_context(sys.argv[2])
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            futures = [pool.submit(ask, number) for number in range(6)]
            texts = [future.result() for future in futures if future is not futures[3]]
            error = futures[3].exception()
        assert type(error) is NotFoundError and error.status_code == 404 and error.job_id is None, error
        assert error.request_id and error.attempts == 1
        print(len(texts), client.generate(prompt="after", max_tokens=2)["text"] != "")
    """
    path = tmp_path / "pool.py"
    path.write_text(textwrap.dedent(program))
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(path), service.url, method, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = await all_that_is_said(process)
    assert (process.returncode, said) == (0, "5 True")


async def test_after_a_fork_what_was_under_way_is_the_parents(service: RunningService) -> None:
    stall = service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat", times=1))
    program = """
    client = Client(url)
    future = client.submit_future(messages=messages)
    while not list(client.jobs(status="processing")):
        pass
    assert client.active_requests == 1
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # The child has a place, a thread and connections of its own.
        text = client.generate(prompt="child", max_tokens=2)["text"]
        os.write(writing, repr((client.active_requests, client.queued_requests, bool(text))).encode())
        os._exit(0)
    os.waitpid(child, 0)
    print(os.read(reading, 99).decode(), client.active_requests, future.done())
    assert client.generate(prompt="parent", max_tokens=2)["text"]
    future.cancel()
    client.close()
    """
    assert await run(program, service.url) == "(0, 0, True) 1 False"
    await ends(service, "cancelled", 1)
    stall.release()


async def test_after_a_fork_open_streams_and_maps_are_the_parents(service: RunningService) -> None:
    stall = service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat", after_tokens=2, times=2))
    program = """
    client = Client(url)
    client.max_concurrent_requests = 8
    stream, other = (client.stream_chat(messages=messages) for _ in range(2))
    assert next(stream)["text"] and next(other)["text"]
    answers = client.map(["a", "b"], in_flight=2)
    assert next(answers)["text"]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            next(other)
        except ConfigurationError as error:
            said = "fork" in str(error)
        stream.close()
        answers.close()
        del stream, other
        gc.collect()
        os.write(writing, repr((said, client.generate(prompt="child", max_tokens=2)["text"] != "")).encode())
        os._exit(0)
    os.waitpid(child, 0)
    jobs = [job["status"] for job in client.jobs()]
    print(os.read(reading, 99).decode(), jobs.count("cancelled"), jobs.count("processing"), client.active_requests)
    stream.close()
    other.close()
    assert next(answers)["text"]
    client.close()
    """
    assert await run(program, service.url) == "(True, True) 0 2 2"
    await ends(service, "cancelled", 2)
    stall.release()


EXITS = {
    "a future": "client.submit_future(messages=messages); wait()",
    "a thread": "threading.Thread(target=ask).start(); wait()",
    "a daemon": "threading.Thread(target=ask, daemon=True).start(); wait()",
    "a pool": "concurrent.futures.ThreadPoolExecutor(2).submit(ask); wait()",
    "a map": "answers = client.map(['a', 'b']); threading.Thread(target=first).start(); wait()",
}


@pytest.mark.parametrize("exit_", EXITS)
async def test_no_exit_hangs_and_what_was_under_way_is_cancelled(service: RunningService, exit_: str) -> None:
    stall = service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))
    program = f"""
    client = Client(url)
    def ask():
        try:
            client.chat(messages=messages)
        except ConfigurationError as error:
            assert "closed" in str(error)
    def first():
        try:
            next(answers)
        except ConfigurationError as error:
            assert "closed" in str(error)
    def wait():
        while not list(client.jobs(status="processing")):
            pass
    {EXITS[exit_]}
    print("ends")
    """
    assert await run(program, service.url) == "ends"
    await ends(service, "cancelled", 1)
    stall.release()


INTERRUPTED = {
    "a call": "client.chat(messages=messages)",
    "a stream": "list(client.stream_chat(messages=messages))",
    "a map": "list(client.map(['a']))",
    "asyncio": "asyncio.run(AsyncClient(url).chat(messages=messages))",
}


@pytest.mark.parametrize("what", INTERRUPTED)
async def test_ctrl_c_cancels_the_job_and_goes_on(service: RunningService, what: str) -> None:
    stall = service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))
    program = f"""
    client = Client(url)
    try:
        {INTERRUPTED[what]}
    except KeyboardInterrupt:
        print("interrupted", client.active_requests)
    """
    assert await run(program, service.url, is_interrupted=True, service=service) == "interrupted 0"
    await ends(service, "cancelled", 1)
    stall.release()


async def test_futures_that_are_cancelled_and_streams_that_are_closed_cancel_their_jobs(
    service: RunningService,
) -> None:
    stall = service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat", after_tokens=2))
    program = """
    with Client(url) as client:
        future = client.submit_future("generate", prompt="hello")
        while not list(client.jobs(status="processing")):
            pass
        assert future.cancel()
        stream = client.stream_chat(messages=messages)
        assert next(stream)["text"]
        stream.close()
        stream = client.stream_chat(messages=messages)
        assert next(stream)["text"]
        del stream
        gc.collect()
        while client.active_requests:
            pass
        print(client.usage_stats["failed_requests"])
    """
    assert await run(program, service.url) == "3"
    await ends(service, "cancelled", 3)
    stall.release()


async def test_a_closed_client_says_so(service: RunningService) -> None:
    client = Client(service.url)
    assert (await asyncio.to_thread(client.generate, prompt="hello"))["text"]
    stream = client.stream_chat(messages=[{"role": "user", "content": "Why?"}])
    client.close()
    client.close()
    closed = (partial(client.generate, prompt="x"), client.list_models, stream.__next__, partial(client.map, []))
    for call in closed:
        with pytest.raises(ConfigurationError, match="closed"):
            call()
    other = AsyncClient(service.url)
    await other.aclose()
    with pytest.raises(ConfigurationError, match="closed"):
        await other.generate(prompt="x")
    assert "sk-" not in repr(Client(service.url, api_key="sk-secret"))


async def test_a_subclass_of_the_original_kind_is_called_from_futures_too() -> None:
    class Own(Client):
        def make_post_request_ollama(self, endpoint_url, data, stream=False, request_id=None, priority=None):  # type: ignore[no-untyped-def]
            return {"message": {"content": f"{endpoint_url} {request_id}"}}

    client = Own("http://localhost:1")
    assert client.submit_future("generate", prompt="x", request_id="me").result()["text"].endswith("/api/chat me")
    assert [answer["text"][-1] for answer in client.map(["a"], request_id="b")] == ["b"]


async def test_a_bare_ollamas_call_ends_with_the_connection() -> None:
    async with SimulatedServer(QUICK) as ollama:
        stall = ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))
        program = """
        client = Client(url)
        future = client.submit_future(messages=messages)
        while client.active_requests == 0:
            pass
        os.write(1, b"begun")
        sys.stdin.readline()
        """
        async with programs.program(PRELUDE + textwrap.dedent(program), ollama.url) as running:
            await ollama.observations.until(lambda seen: seen.stalled == 1)
            running.go_on()
            assert (await running.ends())[0] == 0
        await ollama.observations.until(lambda seen: seen.closed_connections == 1)
        stall.release()


async def test_a_client_that_is_dropped_ends_its_thread_and_its_connections(service: RunningService) -> None:
    program = """
    client = Client(url)
    client.generate(prompt="hello", max_tokens=2)
    [thread] = [one for one in threading.enumerate() if one.name == "corral"]
    del client
    gc.collect()
    thread.join()
    async def drop():
        other = AsyncClient(url)
        await other.generate(prompt="hello", max_tokens=2)
        del other
        gc.collect()
    asyncio.run(drop())
    print("ended")
    """
    assert await run(program, service.url) == "ended"


async def test_a_future_is_answered_whose_client_is_dropped(service: RunningService) -> None:
    program = """
    def ask():
        return Client(url).submit_future("generate", prompt="hello", max_tokens=2)
    future = ask()
    gc.collect()
    print(future.result()["usage"]["completion_tokens"])
    for thread in threading.enumerate():
        if thread.name == "corral":
            thread.join()
    """
    assert await run(program, service.url) == "2"
