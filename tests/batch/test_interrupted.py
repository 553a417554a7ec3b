"""A batch and its service are killed, stopped and left without room: what was accepted is asked once, and what is
written is right.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from service.simulated import SimulatedServer
from tests.batch.files import objects, prompts, written
from tests.batch.processes import ended, running_batch
from tests.bench.processes import free_port
from tests.support.command_line import ran
from tests.support.processes import PATIENCE_SECONDS, running_service
from tests.support.running import QUICK, RunningService, service_in_process

PACED = dataclasses.replace(QUICK, parallel=5, tokens=4, token_seconds=0.002, remembered_requests=100_000)
OF_ONE_RUN = ("seconds", "job_id")


def lasting(output: Path) -> list[dict[str, Any]]:
    """What an output says that is the same in each run."""
    return [{name: value for name, value in one.items() if name not in OF_ONE_RUN} for one in objects(output)]


async def undisturbed(source: Path, output: Path, url: str) -> list[dict[str, Any]]:
    """The same of a run that nobody disturbs."""
    assert (await ran("batch", str(source), "-o", str(output), "--url", url)).status == 0
    return lasting(output)


async def completed_once(url: str, number: int) -> None:
    """Each prompt was a job once, and that is completed."""
    jobs = (await ran("list", "-n", str(10 * number), "--json", "--url", url)).objects
    assert Counter(job["status"] for job in jobs) == {"completed": number}
    assert set(Counter(job["prompt"] for job in jobs).values()) == {1}


async def kill_until_done(folder: Path, rounds: int, lines: int) -> None:
    """Batches are killed after a number of answers that chance chooses, until they are done."""
    chance = random.Random(7)
    async with service_in_process(settings=PACED) as first:
        right = await undisturbed(written(folder / "in.jsonl", *prompts(lines)), folder / "right.jsonl", first.url)
    for number in range(rounds):
        async with service_in_process(settings=PACED) as service:
            output = folder / f"out{number}.jsonl"
            answers = service.ollama.observations
            kills = 0
            while True:
                goal = answers.answers + chance.randrange(1, lines // 2)
                async with running_batch(folder / "in.jsonl", output, url=service.url) as process:
                    waits = asyncio.create_task(process.wait())
                    goes = asyncio.create_task(answers.until(lambda seen, goal=goal: seen.answers >= goal))  # type: ignore[misc]
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        await asyncio.wait((waits, goes), return_when=asyncio.FIRST_COMPLETED)
                    goes.cancel()
                    if process.returncode is None and kills < 3:
                        process.kill()
                        kills += 1
                        # What stands there at any time is whole lines, or is cut where the run goes on.
                        continue
                    assert await waits == 0
                break
            assert lasting(output) == right
            await completed_once(service.url, lines)
            assert not output.with_name(output.name + ".journal").exists()


async def test_a_batch_that_is_killed_until_it_is_done_writes_what_an_undisturbed_one_does(tmp_path: Path) -> None:
    await kill_until_done(tmp_path, rounds=3, lines=80)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_batch_that_is_killed_again_and_again_writes_what_an_undisturbed_one_does(
    tmp_path: Path, rounds: int
) -> None:
    await kill_until_done(tmp_path, rounds=rounds, lines=400)


async def kill_the_service(folder: Path, kills: int, lines: int) -> None:
    """The service is killed under a batch, which has no part in it."""
    source, port = written(folder / "in.jsonl", *prompts(lines)), free_port()
    async with SimulatedServer(PACED) as ollama:
        own = {"OLLAMA_URL": ollama.url, "CORRAL_SERVER__PORT": str(port)}
        url = f"http://127.0.0.1:{port}"
        output = folder / "out.jsonl"
        async with running_batch(source, output, url=url) as process:
            for number in range(1, kills + 1):
                async with running_service(folder, **own) as service:
                    goal = number * lines // (kills + 2)
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        await ollama.observations.until(lambda seen, goal=goal: seen.answers >= goal)  # type: ignore[misc]
                    await service.process.kill()
            async with running_service(folder, **own):
                assert (await ended(process))[0] == 0
                await completed_once(url, lines)
                found = lasting(output)
                assert found == await undisturbed(source, folder / "right.jsonl", url)


async def test_a_service_that_is_killed_under_a_batch_and_comes_back_answers_each_prompt_once(tmp_path: Path) -> None:
    await kill_the_service(tmp_path, kills=2, lines=150)


@pytest.mark.parametrize("times", [1, 2])
async def test_ctrl_c_leaves_the_jobs_and_says_how_to_go_on(
    times: int, tmp_path: Path, service: RunningService
) -> None:
    stalled = service.stall(prompt="prompt 3")
    source, output = written(tmp_path / "in.jsonl", *prompts(6)), tmp_path / "out.jsonl"
    async with running_batch(source, output, url=service.url) as process:
        await service.ollama.observations.until(lambda seen: seen.stalled == 1 and seen.answers == 5)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
        status, err = await ended(process)
    assert status == 130
    assert "Traceback" not in err
    if times == 1:
        assert err == "interrupted; the same command goes on\n"
        # Whole lines, however many had been collected.
        assert [one["index"] for one in objects(output)] == list(range(len(objects(output))))
    stalled.release()
    assert (await ran("batch", str(source), "-o", str(output), "--url", service.url)).status == 0
    await completed_once(service.url, 6)


async def test_a_second_run_on_the_same_output_is_refused_and_harms_nothing(
    tmp_path: Path, service: RunningService
) -> None:
    stalled = service.stall(prompt="prompt 1")
    source, output = written(tmp_path / "in.jsonl", *prompts(3)), tmp_path / "out.jsonl"
    async with running_batch(source, output, url=service.url) as process:
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        for options in ((), ("--restart",)):
            second = await ran("batch", str(source), "-o", str(output), "--url", service.url, *options)
            assert (second.status, "another run writes this output" in second.err) == (2, True)
        stalled.release()
        status, err = await ended(process)
        assert (status, err.splitlines()[0]) == (0, "3 of 3 lines completed, 0 failed")
    assert len(objects(output)) == 3


async def test_an_output_that_is_removed_meanwhile_is_told_of(tmp_path: Path, service: RunningService) -> None:
    stalled = service.stall(prompt="prompt 1")
    source, output = written(tmp_path / "in.jsonl", *prompts(3)), tmp_path / "out.jsonl"
    async with running_batch(source, output, url=service.url) as process:
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        output.unlink()
        stalled.release()
        status, err = await ended(process)
    assert (status, "was removed while the run wrote it" in err, "Traceback" in err) == (1, True, False)
    assert (await ran("batch", str(source), "-o", str(output), "--url", service.url, "--restart")).status == 0


async def test_a_disk_without_room_ends_a_run_in_words_and_the_run_goes_on_afterwards(
    tmp_path: Path, service: RunningService
) -> None:
    lines = [{"id": number, "prompt": f"prompt {number}"} for number in range(300)]
    source, output = written(tmp_path / "in.jsonl", *lines), tmp_path / "out.jsonl"
    async with running_batch(source, output, url=service.url, file_bytes=40_000) as process:
        status, err = await ended(process)
    assert status == 1
    assert "Traceback" not in err
    assert str(output) in err
    assert (await ran("batch", str(source), "-o", str(output), "--url", service.url)).status == 0
    assert [one["id"] for one in objects(output)] == list(range(300))
    await completed_once(service.url, 300)
