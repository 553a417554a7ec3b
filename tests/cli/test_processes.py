"""Real processes: each exit status, Ctrl-C once and twice, pipes that close, services that are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.access import service_with_keys
from tests.support.command_line import NOBODY
from tests.support.processes import PATIENCE_SECONDS, running_service, simulated_process
from tests.support.running import RunningService, service_in_process
from tests.support.terminals import at_pipes, at_terminal, environment, program


async def test_0_done(service: RunningService) -> None:
    status, out, err = await at_pipes("ask", "hello", CORRAL_URL=service.url)
    assert (status, len(out.split()), err) == (0, 20, "")


async def test_1_the_job_failed(service: RunningService) -> None:
    status, out, err = await at_pipes("ask", "-m", "absent", "hello", CORRAL_URL=service.url)
    assert (status, out) == (1, "")
    assert err.startswith("corral: ")
    assert "Traceback" not in err


async def test_2_wrong_usage() -> None:
    status, out, err = await at_pipes("list", "--nonsense")
    assert (status, out) == (2, "")
    assert "--nonsense" in err


async def test_3_nobody_there() -> None:
    status, out, err = await at_pipes("list", CORRAL_URL=NOBODY)
    assert (status, out) == (3, "")
    assert "Traceback" not in err


async def test_4_no_key() -> None:
    async with service_with_keys() as service:
        assert (await at_pipes("list", CORRAL_URL=service.url))[0] == 4


async def test_5_a_batch_of_which_a_line_failed(service: RunningService, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('"hello"\n{"prompt": "x", "model": "absent"}\n')
    output = str(tmp_path / "out.jsonl")
    status, out, err = await at_pipes("batch", str(tmp_path / "in.jsonl"), "-o", output, CORRAL_URL=service.url)
    assert (status, out) == (5, "")
    assert "1 of 2 lines completed, 1 failed" in err


async def test_124_a_wait_ran_out(service: RunningService) -> None:
    service.stall()
    status, out, err = await at_pipes("submit", "hello", "--wait", "0.05", CORRAL_URL=service.url)
    assert (status, out) == (124, "")
    assert "it goes on" in err


async def test_a_traceback_is_for_who_asks_for_it() -> None:
    status, _, err = await at_pipes("list", CORRAL_URL=NOBODY, CORRAL_DEBUG="1")
    assert (status, "Traceback" in err) == (3, True)


def pending(process_id: int) -> int:
    """The signals that a process has not taken yet (proc_pid_status(5))."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return sum(int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd")))


class Running:
    """A command at pipes that is under way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self, words: bytes) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            said = b""
            while words not in said:
                piece = await self.process.stdout.read(1)
                assert piece, said
                said += piece

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    async def has_taken_signals(self) -> None:
        """Wait until none is on its way; two on their way would be one."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while pending(self.process.pid):  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0)

    async def ended(self) -> tuple[int, str]:
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            err = (await self.process.stderr.read()).decode()
            return await self.process.wait(), err


@asynccontextmanager
async def running(*arguments: str, **environ: str) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        *program(*arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**environ),
        # Whoever runs the tests in the background has told them to pass over Ctrl-C, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def the_job(service: RunningService) -> str:
    """The id of the only one."""
    _, page = await service.call("GET", "/api/v1/prompts")
    [job] = page["prompts"]
    return str(job["id"])


async def test_ctrl_c_cancels_what_is_asked_and_says_so(service: RunningService) -> None:
    service.stall()
    async with running("ask", "hello", CORRAL_URL=service.url) as command:
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        await command.says(b" ")
        command.interrupt()
        status, err = await command.ended()
    job_id = await the_job(service)
    assert (status, err) == (130, f"cancelled {job_id}\n")
    await service.until(job_id, "cancelled")


@pytest.mark.parametrize("command", ["watch", "submit", "result"])
async def test_ctrl_c_leaves_a_job_alone_that_is_only_looked_at(command: str, service: RunningService) -> None:
    stalled = service.stall()
    job_id = await service.submit()
    await service.ollama.observations.until(lambda seen: seen.stalled == 1)
    asked = {
        "watch": ["watch", job_id],
        "result": ["result", job_id, "--wait"],
        "submit": ["submit", "hello", "--wait"],
    }
    async with running(*asked[command], CORRAL_URL=service.url) as waiting:
        if command == "watch":
            await waiting.says(b" ")
        elif command == "submit":
            await service.ollama.observations.until(lambda seen: seen.stalled == 2)
        else:
            await service.look(job_id, lambda job: any("/result" in path for path in polled(service)))
        waiting.interrupt()
        assert (await waiting.ended())[0] == 130
    stalled.release()
    await service.until(job_id, "completed")


def polled(service: RunningService) -> list[str]:
    """The paths of the requests that wait now."""
    connections = service.runner.server.connections if service.runner.server is not None else []
    return [one._current_request.path for one in connections if one._current_request is not None]


async def test_a_second_ctrl_c_ends_at_once_though_the_service_says_nothing(tmp_path: Path) -> None:
    given = ("--tokens", "500", "--token-seconds", "0.1", "--load-seconds", "0")
    async with (
        simulated_process(tmp_path, *given) as ollama,
        running_service(tmp_path, OLLAMA_URL=ollama) as service,
        running("ask", "hello", CORRAL_URL=service.url) as command,
    ):
        await command.says(b" ")
        os.kill(service.process.pid, signal.SIGSTOP)
        try:
            command.interrupt()
            await command.has_taken_signals()
            command.interrupt()
            assert (await command.ended())[0] == 130
        finally:
            os.kill(service.process.pid, signal.SIGCONT)


async def test_a_pipe_that_closes_ends_a_command_quietly_and_cancels_what_it_asked() -> None:
    async with service_in_process() as service:
        stalled = service.stall()
        async with running("ask", "hello", CORRAL_URL=service.url) as command:
            await command.says(b" ")
            transport = command.process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
            transport.close()
            stalled.release()
            assert await command.ended() == (0, "")
        for _ in range(3):
            await service.finished()
        async with running("list", "--json", CORRAL_URL=service.url) as command:
            command.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
            assert await command.ended() == (0, "")


async def test_a_service_that_is_killed_and_comes_back_answers_all_the_same(tmp_path: Path) -> None:
    given = ("--tokens", "30", "--token-seconds", "0.05", "--load-seconds", "0", "--parallel", "2")
    async with (
        simulated_process(tmp_path, *given) as ollama,
        running_service(tmp_path, OLLAMA_URL=ollama) as service,
        running("ask", "hello", CORRAL_URL=service.url) as command,
        at_terminal("ask", "hello", "--url", service.url) as terminal,
    ):
        port = str(service.port)
        await command.says(b" ")
        await terminal.shows("sun")
        await service.process.kill()
        async with running_service(tmp_path, OLLAMA_URL=ollama, CORRAL_SERVER__PORT=port):
            # The simulated model says the same again, so that a pipe misses nothing and gets nothing twice.
            assert (await command.ended())[0] == 0
            assert await terminal.ended() == 0
            assert "The service came back; the answer starts anew." in terminal.shown


async def test_a_list_that_is_followed_tells_each_change_once_until_ctrl_c(service: RunningService) -> None:
    await service.finished("before")
    stalled = service.stall(prompt="watched")
    async with running("list", "--follow", CORRAL_URL=service.url) as command:
        await command.says(b"before\n")
        job_id = await service.submit("watched")
        await command.says(f"{job_id}".encode())
        stalled.release()
        await command.says(b"completed")
        command.interrupt()
        assert (await command.ended())[0] == 130
