"""Whole batches: every format and option, against Corral, Corral with keys and a bare Ollama."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import re
from pathlib import Path

import pytest
from openai.types.chat import ChatCompletion

from service.simulated import Fault, FaultKind, SimulatedModel, SimulatedServer, SimulatedSettings
from tests.batch.conftest import Batch
from tests.batch.files import objects, openai_line, prompts, written
from tests.support.access import ADMIN, made_key, service_with_keys
from tests.support.command_line import ran
from tests.support.running import QUICK, RunningService, service_in_process

KEY = ADMIN["Authorization"].removeprefix("Bearer ")


def left(folder: Path) -> set[str]:
    """What is in a folder beside the input."""
    return {path.name for path in folder.iterdir() if not path.name.startswith("in")}


@pytest.mark.parametrize("server", ["corral", "ollama"])
async def test_each_prompt_is_answered_in_the_order_of_the_input(
    server: str, tmp_path: Path, batch: Batch, service: RunningService, bare: SimulatedServer
) -> None:
    source = written(tmp_path / "in.jsonl", *prompts(40))
    url, ollama = (service.url, service.ollama) if server == "corral" else (bare.url, bare)
    done = await batch(source, url=url)
    assert (done.status, done.out) == (0, "")
    found = objects(tmp_path / "out.jsonl")
    assert [(one["index"], one["id"], one["status"]) for one in found] == [
        (place, f"line {place}", "completed") for place in range(40)
    ]
    assert all(one["result"] and one["completion_tokens"] == 20 and one["seconds"] >= 0 for one in found)
    assert all(bool(one["job_id"]) == (server == "corral") for one in found)
    assert sorted(ollama.observations.prompts) == sorted(f"prompt {place}" for place in range(40))
    assert left(tmp_path) == {"out.jsonl"}
    assert "40 of 40 lines completed, 0 failed" in done.err


async def test_a_batch_is_low_priority_unless_told_otherwise(
    tmp_path: Path, batch: Batch, service: RunningService
) -> None:
    source = written(tmp_path / "in.jsonl", "a", {"prompt": "b", "priority": "high"})
    await batch(source, url=service.url)
    await batch(source, "--priority", "normal", url=service.url, output="again.jsonl")
    jobs = (await ran("list", "--json", "--url", service.url)).objects
    assert sorted((job["prompt"], job["priority"]) for job in jobs) == [
        ("a", "low"), ("a", "normal"), ("b", "high"), ("b", "high"),
    ]  # fmt: skip


@pytest.mark.parametrize("server", ["corral", "ollama"])
async def test_openais_lines_give_openais_form_with_the_reply_as_it_was(
    server: str, tmp_path: Path, batch: Batch, service: RunningService, bare: SimulatedServer
) -> None:
    lines = [openai_line("a"), openai_line("b", model="absent")]
    lines.append({**openai_line("c"), "url": "/v1/completions", "body": {"model": "llama3.2", "prompt": "x"}})
    source = written(tmp_path / "in.jsonl", *lines)
    url = service.url if server == "corral" else bare.url
    done = await batch(source, url=url)
    assert done.status == 5
    first, second, third = objects(tmp_path / "out.jsonl")
    assert list(first) == ["id", "custom_id", "response", "error"]
    assert list(first["response"]) == ["status_code", "request_id", "body"]
    assert ChatCompletion.model_validate(first["response"]["body"]).choices[0].message.content
    assert (second["response"]["status_code"], second["error"]) == (404, None)
    assert "absent" in second["response"]["body"]["error"]["message"]
    assert third["custom_id"] == "c"
    assert objects(tmp_path / "out.jsonl.failures") == [lines[1]]


async def test_tables_in_and_out_templates_and_packed_inputs(
    tmp_path: Path, batch: Batch, service: RunningService
) -> None:
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(b'id,text\n7,"a, b"\n8,c\n'))
    done = await batch(tmp_path / "in.csv.gz", "--template", "Sum: {text}", url=service.url, output="out.csv")
    assert done.status == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["text"], row["index"], row["status"]) for row in rows] == [
        ("7", "a, b", "0", "completed"), ("8", "c", "1", "completed"),
    ]  # fmt: skip
    assert service.ollama.observations.prompts == ["Sum: a, b", "Sum: c"]


async def test_standard_input_is_an_input(tmp_path: Path, batch: Batch, service: RunningService) -> None:
    assert (await batch("-", url=service.url, stdin='"a"\n"b"\n')).status == 0
    assert len(objects(tmp_path / "out.jsonl")) == 2
    assert (await batch("-", "--input-format", "txt", url=service.url, output="t.jsonl", stdin="c\n")).status == 0
    assert service.ollama.observations.prompts[-1] == "c"


async def test_problems_are_told_with_their_lines_and_nothing_is_asked(
    tmp_path: Path, batch: Batch, service: RunningService
) -> None:
    source = written(tmp_path / "in.jsonl", "good", *[{"prmpt": "x"}] * 30)
    done = await batch(source, url=service.url)
    assert done.status == 2
    assert len([line for line in done.err.splitlines() if line.startswith("line ")]) == 20
    assert "line 2: prmpt: there is no such field; did you mean prompt?" in done.err
    assert "30 problems (10 more are not shown); nothing was asked" in done.err
    assert (left(tmp_path), service.ollama.observations.prompts) == (set(), [])
    (tmp_path / "empty.jsonl").write_text("\n")
    assert "has no prompts" in (await batch(tmp_path / "empty.jsonl", url=service.url)).err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give -o OUTPUT"),
        (["-o", "-"], "-o: give a file"),
        (["-o", "in.jsonl"], "-o: is the input itself"),
        (["-o", "absent/out.jsonl"], "is not there"),
        (["-o", "out.jsonl", "--failures", "in.jsonl"], "--failures: give a file of its own"),
        (["-o", "out.jsonl", "--restart", "--retry-failed"], "give one of them"),
        (["-o", "out.jsonl", "--retry-failed"], "run the batch without --retry-failed first"),
        (["-o", "out.jsonl", "--template", "x"], "has no field"),
        (["-o", "out.jsonl", "--in-flight", "0"], "--in-flight"),
    ],
)
async def test_wrong_usage_says_what_to_do(
    options: list[str], words: str, tmp_path: Path, bare: SimulatedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in.jsonl", "a")
    done = await ran("batch", "in.jsonl", *options, "--url", bare.url)
    assert (done.status, words in done.err) == (2, True), done.err
    assert left(tmp_path) == set()


async def test_a_dry_run_counts_and_estimates_and_asks_nothing(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", {"prompt": "x" * 4000, "model": "m"}, "y" * 4000)
    options = ("--dry-run", "--price-in", "1000", "--price-out", "500", "--max-tokens", "1000")
    told = await ran("batch", str(source), *options)
    assert told.status == 0
    assert "2 lines" in told.out
    [found] = (await ran("batch", str(source), *options, "--json")).objects
    assert found == {
        "lines": 2, "models": {"m": 1, "(default)": 1}, "characters": 8000, "estimated_prompt_tokens": 2000,
        "most_completion_tokens": 2000, "estimated_price": 3.0,
    }  # fmt: skip


async def test_the_first_n_alone(tmp_path: Path, batch: Batch, service: RunningService) -> None:
    source = written(tmp_path / "in.jsonl", *prompts(5))
    assert (await batch(source, "--limit", "2", url=service.url)).status == 0
    assert len(objects(tmp_path / "out.jsonl")) == 2


async def test_failed_lines_are_an_input_of_their_own_and_are_asked_again_in_their_places(
    tmp_path: Path, batch: Batch, service: RunningService
) -> None:
    source = written(tmp_path / "in.jsonl", "a", {"prompt": "b", "model": "absent"}, "c")
    done = await batch(source, url=service.url)
    assert done.status == 5
    assert "1 × not_found" in done.err
    before = objects(tmp_path / "out.jsonl")
    assert [one["status"] for one in before] == ["completed", "failed", "completed"]
    assert before[1]["error"]["code"] == "not_found"
    failures = tmp_path / "out.jsonl.failures"
    assert objects(failures) == [{"prompt": "b", "model": "absent"}]
    assert (await batch(source, url=service.url)).status == 2
    again = await batch(failures, "--input-format", "jsonl", url=service.url, output="f.jsonl")
    assert (again.status, objects(tmp_path / "f.jsonl.failures")) == (5, objects(failures))
    async with service_in_process(settings=with_model("absent")) as other:
        still = await batch(source, "--retry-failed", url=service.url)
        assert (still.status, "0 of 1 lines completed, 1 failed" in still.err) == (5, True)
        retried = await batch(source, "--retry-failed", url=other.url)
    assert retried.status == 0, retried.err
    after = objects(tmp_path / "out.jsonl")
    assert [one["status"] for one in after] == ["completed"] * 3
    assert (after[0], after[2]) == (before[0], before[2])
    assert not failures.exists()
    assert (await batch(source, "--retry-failed", url=service.url)).status == 0


def with_model(name: str) -> SimulatedSettings:
    return dataclasses.replace(QUICK, models=(*QUICK.models, SimulatedModel(name)))


async def test_a_bound_on_failures_ends_the_run_which_can_go_on(
    tmp_path: Path, batch: Batch, service: RunningService
) -> None:
    source = written(tmp_path / "in.jsonl", *[{"prompt": "b", "model": "absent"}] * 5, "good")
    done = await batch(source, "--max-failures", "2", url=service.url)
    assert done.status == 5
    assert re.search(r"--max-failures: [2-5] lines have failed; the same command goes on", done.err)
    assert "out.jsonl.journal" in left(tmp_path)
    # What failed before does not count again: the same command goes on.
    while (done := await batch(source, "--max-failures", "2", url=service.url)).status == 5 and "--max-f" in done.err:
        assert "out.jsonl.journal" in left(tmp_path)
    assert done.status == 5
    assert [one["status"] for one in objects(tmp_path / "out.jsonl")] == ["failed"] * 5 + ["completed"]
    assert left(tmp_path) == {"out.jsonl", "out.jsonl.failures"}


async def test_a_bound_on_time_ends_the_run_which_goes_on_with_the_same_jobs(
    tmp_path: Path, batch: Batch, service: RunningService
) -> None:
    stalled = service.stall()
    source = written(tmp_path / "in.jsonl", *prompts(12))
    done = await batch(source, "--max-wait", "1", url=service.url)
    assert (done.status, "--max-wait" in done.err) == (124, True)
    stalled.release()
    # Another input, model or template with the old journal is refused.
    other = written(tmp_path / "in2.jsonl", "other")
    for arguments in (
        (other,),
        (source, "-m", "thinker"),
        (source, "--template", "{prompt}"),
        (source, "--limit", "3"),
    ):
        refused = await batch(*arguments, url=service.url)
        assert (refused.status, "--restart" in refused.err) == (2, True)
    assert (await batch(source, url=service.url)).status == 0
    assert len((await ran("list", "-n", "100", "--json", "--url", service.url)).objects) == 12
    assert len(objects(tmp_path / "out.jsonl")) == 12
    assert (await batch(other, "--restart", url=service.url)).status == 0
    assert len(objects(tmp_path / "out.jsonl")) == 1


async def test_a_detached_batch_is_collected_by_the_same_command(
    tmp_path: Path, batch: Batch, service: RunningService
) -> None:
    stalled = service.stall()
    source = written(tmp_path / "in.jsonl", *prompts(20))
    done = await batch(source, "--detach", "--in-flight", "3", url=service.url)
    assert (done.status, done.out) == (0, "")
    assert "the same command goes on" in done.err
    stalled.release()
    assert (await batch(source, url=service.url)).status == 0
    assert [one["id"] for one in objects(tmp_path / "out.jsonl")] == [f"line {place}" for place in range(20)]
    assert len((await ran("list", "-n", "100", "--json", "--url", service.url)).objects) == 20


async def test_a_bare_ollama_has_nothing_to_leave_jobs_in(tmp_path: Path, batch: Batch, bare: SimulatedServer) -> None:
    done = await batch(written(tmp_path / "in.jsonl", "a"), "--detach", url=bare.url)
    assert (done.status, "has no queue" in done.err) == (1, True)
    assert left(tmp_path) == set()


async def test_openais_lines_are_no_jobs_to_leave(tmp_path: Path, batch: Batch, service: RunningService) -> None:
    done = await batch(written(tmp_path / "in.jsonl", openai_line("a")), "--detach", url=service.url)
    assert (done.status, "are no jobs" in done.err) == (1, True)
    assert left(tmp_path) == set()


async def test_a_full_queue_is_waited_out_and_shown(tmp_path: Path, batch: Batch) -> None:
    async with service_in_process({"queue.max_size": 3}, seats=1) as service:
        stalled = service.stall()
        source = written(tmp_path / "in.jsonl", *prompts(15))
        done = await batch(source, "--progress", "json", "--max-wait", "2", url=service.url)
        assert done.status == 124
        told = [json.loads(line)["progress"] for line in done.err.splitlines() if line.startswith('{"progress"')]
        assert any("queue" in (one["waits_for"] or "") for one in told), told
        stalled.release()
        assert (await batch(source, url=service.url)).status == 0
    assert len(objects(tmp_path / "out.jsonl")) == 15


async def test_a_rate_limit_is_waited_out_and_shown(tmp_path: Path, batch: Batch) -> None:
    async with service_with_keys() as service:
        key = (await made_key(service, requests_per_hour=3))["key"]
        source = written(tmp_path / "in.jsonl", *prompts(5))
        how = {"url": service.url, "environ": {"CORRAL_KEY": key}}
        done = await batch(source, "--max-wait", "2", "--progress", "json", **how)
        assert done.status == 124
        told = [json.loads(line)["progress"] for line in done.err.splitlines() if line.startswith('{"progress"')]
        assert any("a limit of this key" in (one["waits_for"] or "") for one in told)
        assert told[-1]["done"] == 3


async def test_a_key_that_is_known_to_nobody_ends_the_run_and_another_goes_on(tmp_path: Path, batch: Batch) -> None:
    async with service_with_keys() as service:
        source = written(tmp_path / "in.jsonl", *prompts(3))
        done = await batch(source, "--key", "wrong", url=service.url)
        assert (done.status, objects(tmp_path / "out.jsonl")) == (4, [])
        # Nothing came of it, so that another input is no contradiction.
        source = written(tmp_path / "in.jsonl", *prompts(4))
        assert (await batch(source, "--key", KEY, url=service.url)).status == 0


async def test_a_model_that_a_key_may_not_use_fails_its_line(tmp_path: Path, batch: Batch) -> None:
    async with service_with_keys() as service:
        key = (await made_key(service, models=["llama3.2"]))["key"]
        source = written(tmp_path / "in.jsonl", "a", {"prompt": "b", "model": "thinker"})
        done = await batch(source, "--key", key, url=service.url)
        assert done.status == 5
        assert [one["status"] for one in objects(tmp_path / "out.jsonl")] == ["completed", "failed"]
        alone = await batch(
            source, "--key", key, "--model", "thinker", "--limit", "1", url=service.url, output="2.jsonl"
        )
        assert alone.status == 4


async def test_a_job_that_somebody_cancels_or_purges_is_a_line_that_failed(
    tmp_path: Path, batch: Batch, service: RunningService
) -> None:
    stalled = service.stall()
    source = written(tmp_path / "in.jsonl", *prompts(3))
    assert (await batch(source, "--detach", url=service.url)).status == 0
    jobs = sorted((await ran("list", "--json", "--url", service.url)).objects, key=lambda job: str(job["prompt"]))
    await service.call("DELETE", f"/api/v1/prompt/{jobs[0]['id']}")
    await service.call("DELETE", f"/api/v1/prompt/{jobs[1]['id']}?purge=true")
    stalled.remove()
    await service.call("DELETE", f"/api/v1/prompt/{jobs[2]['id']}")
    done = await batch(source, url=service.url)
    assert done.status == 5
    found = objects(tmp_path / "out.jsonl")
    assert [(one["status"], one["error"]["code"]) for one in found] == [
        ("cancelled", "cancelled"), ("failed", "result_gone"), ("cancelled", "cancelled"),
    ]  # fmt: skip


async def test_a_server_that_fails_for_a_while_is_asked_again(
    tmp_path: Path, batch: Batch, bare: SimulatedServer
) -> None:
    bare.arm(Fault(kind=FaultKind.ERROR, status=503, endpoint="/api/chat", times=2))
    source = written(tmp_path / "in.jsonl", *prompts(3))
    assert (await batch(source, url=bare.url)).status == 0
    bare.arm(Fault(kind=FaultKind.ERROR, status=400, endpoint="/api/chat", times=1))
    assert (await batch(source, url=bare.url, output="2.jsonl")).status == 5


async def test_an_output_that_was_changed_meanwhile_is_left_alone(
    tmp_path: Path, batch: Batch, service: RunningService
) -> None:
    service.stall(prompt="prompt 2")
    source = written(tmp_path / "in.jsonl", *prompts(3))
    assert (await batch(source, "--max-wait", "2.5", url=service.url)).status == 124
    output = tmp_path / "out.jsonl"
    assert len(objects(output)) == 2
    output.write_text(output.read_text().replace("completed", "COMPLETED"))
    done = await batch(source, url=service.url)
    assert (done.status, "was changed since" in done.err) == (2, True)


async def test_a_summary_tells_tokens_rate_and_price(tmp_path: Path, batch: Batch, service: RunningService) -> None:
    source = written(tmp_path / "in.jsonl", *prompts(4))
    prices = ("--price-in", "1000000", "--price-out", "2")
    done = await batch(source, *prices, "--json", "--progress", "none", url=service.url)
    [found] = done.objects
    asked = found["prompt_tokens"]
    assert (found["lines"], found["completed"], found["failed"], found["completion_tokens"]) == (4, 4, 0, 80)
    assert found["price"] == pytest.approx(asked + 160 / 1_000_000)
    assert found["lines_per_second"] > 0
    assert done.err == ""
