"""Every command, as text and as JSON, against Corral, Corral with keys, a bare Ollama and nobody."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.simulated import SimulatedServer
from tests.support.access import ADMIN, made_key, service_with_keys
from tests.support.command_line import NOBODY, Ran, ran
from tests.support.raw_server import Exchange, raw_server, whole
from tests.support.running import RunningService

LATER = (datetime.now(UTC) + timedelta(days=20)).strftime("%Y-%m-%dT00:00:00Z")
KEY = ADMIN["Authorization"].removeprefix("Bearer ")
ABSENT = "00000000-0000-4000-8000-000000000000"
WITH_JOB = [["status"], ["result"], ["watch"], ["request"], ["cancel"]]
WITHOUT = [["list"], ["models"], ["stats"], ["health"], ["backends"], ["cancel", "--all", "--yes"]]
ASKING = [["ask", "hello"], ["submit", "hello"]]
ALL = [*([*command, ABSENT] for command in WITH_JOB), *WITHOUT, *ASKING]


def words(command: list[str]) -> str:
    return " ".join(command)


async def test_ask_prints_the_answer_alone(service: RunningService) -> None:
    done = await ran("ask", "hello", "--url", service.url)
    assert (done.status, done.err) == (0, "")
    [line] = done.lines
    assert len(line.split()) == 20


async def test_ask_takes_standard_input_as_the_prompt_or_behind_it(service: RunningService) -> None:
    for arguments, prompt in ((["ask"], "piped"), (["ask", "what failed?"], "what failed?\n\npiped")):
        assert (await ran(*arguments, "--url", service.url, stdin="piped")).status == 0
        assert service.ollama.observations.prompts[-1] == prompt


async def test_ask_as_json_prints_the_news_of_the_job(service: RunningService) -> None:
    done = await ran("--json", "ask", "hello", "--url", service.url)
    assert done.status == 0
    kinds = [event["type"] for event in done.objects]
    assert (kinds[0], kinds[-1]) == ("status", "done")
    assert "".join(event["text"] for event in done.objects if event["type"] == "text")


async def test_what_is_wished_reaches_the_model(service: RunningService, tmp_path: Path) -> None:
    schema, picture = tmp_path / "schema.json", tmp_path / "picture.png"
    schema.write_text('{"type": "object"}')
    picture.write_bytes(b"picture")
    wished = ["-m", "llama3.2", "-s", "be brief", "-o", "num_ctx", "2048", "-o", "stop", "x", "--max-tokens", "7"]
    wished += ["--format", str(schema), "-a", str(picture), "--priority", "high", "--think", "false"]
    done = await ran("submit", *wished, "hello", "--url", service.url)
    body = (await ran("request", done.out.strip(), "--url", service.url, "--json")).objects[0]
    assert body["system"] == "be brief"
    assert body["options"] == {"num_ctx": 2048, "stop": "x", "num_predict": 7}
    assert (body["format"], body["images"], body["think"]) == ({"type": "object"}, ["cGljdHVyZQ=="], False)
    assert (await service.call("GET", f"/api/v1/prompt/{done.out.strip()}/status"))[1]["priority"] == "high"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask"], "no prompt"),
        (["ask", "--format", "absent.json", "x"], "--format absent.json"),
        (["ask", "-a", "absent.png", "x"], "absent.png"),
        (["ask", "--think=perhaps", "x"], "--think"),
        (["submit", "--expires-in", "soon", "x"], "give seconds, or a time such as"),
        (["status"], "give the id of a job"),
        (["cancel", "--status", "queued", ABSENT], "choose among --all"),
        (["cancel", "--all", ABSENT], "give ids, or --all"),
        (["backends", "drain"], "give the name"),
        (["list", "-n", "0"], "-n"),
        (["nonsense"], "No such command"),
        (["--url", "http://a", "check"], "asks no other"),
        (["ask", "x", "--url", "ftp://nowhere"], "is no address"),
    ],
    ids=lambda value: words(value) if isinstance(value, list) else None,
)
async def test_wrong_usage_says_what_to_do(arguments: list[str], words: str) -> None:
    done = await ran(*arguments)
    assert (done.status, done.out) == (2, "")
    assert words in done.err
    as_json = await ran("--json", *arguments)
    assert as_json.status == 2
    assert words in as_json.error["message"]


async def test_a_submitted_job_is_looked_at_waited_for_and_come_back_to(service: RunningService) -> None:
    at = ("--url", service.url)
    [job_id] = (await ran("submit", "hello", *at)).lines
    result = await ran("result", job_id, "--wait", *at)
    assert (result.status, len(result.lines)) == (0, 1)
    assert (await ran("result", job_id[:30], *at)).out == result.out
    assert (await ran("result", "-", *at, stdin=f" {job_id}\n")).out == result.out
    assert (await ran("watch", job_id, *at)).out == result.out
    [line] = (await ran("status", job_id, *at)).lines
    assert line.split()[:3] == [job_id, "completed", "llama3.2"]
    [job] = (await ran("status", job_id, *at, "--json")).objects
    assert (job["id"], job["final"]) == (job_id, True)
    [whole] = (await ran("result", job_id, *at, "--json")).objects
    assert whole["result"] == result.out.rstrip("\n")
    [body] = (await ran("request", job_id, *at)).objects
    assert body["prompt"] == "hello"


async def test_submit_with_a_wait_prints_the_answer_alone(service: RunningService) -> None:
    done = await ran("submit", "hello", "--wait", "--url", service.url)
    assert (done.status, len(done.lines)) == (0, 1)
    assert done.err.startswith("submitted ")
    as_json = await ran("submit", "hello", "--wait", "60", "--url", service.url, "--json")
    assert as_json.objects[0]["status"] == "completed"
    [accepted] = (await ran("submit", "hello", "--url", service.url, "--json")).objects
    assert accepted["id"]


async def test_submit_with_a_key_is_one_job(service: RunningService) -> None:
    ids = [(await ran("submit", "hello", "--idempotency-key", "k", "--url", service.url)).out for _ in range(2)]
    assert ids[0] == ids[1]


async def test_a_job_may_begin_later_and_expire(service: RunningService) -> None:
    at = ("--url", service.url)
    [job_id] = (await ran("submit", "x", "--not-before", LATER, "--expires-in", "25d", *at)).lines
    [job] = (await ran("status", job_id, *at, "--json")).objects
    assert job["status"] == "queued"
    assert job["next_attempt_at"].startswith(LATER[:10])
    assert "expires_at" in job
    for wait in ("0.05", "0"):
        late = await ran("result", job_id, "--wait", wait, *at)
        assert (late.status, late.out) == (124, "")
        assert f"corral result {job_id} --wait" in late.err
    early = await ran("result", job_id, *at)
    assert (early.status, early.out) == (1, "")
    assert "--wait waits for its end" in early.err


async def test_ids_that_are_not_one_jobs_are_told_and_keep_nobody_else_from_his_turn(service: RunningService) -> None:
    at = ("--url", service.url)
    ids = [(await ran("submit", "hello", *at)).out.strip() for _ in range(2)]
    done = await ran("status", "nobodys", ids[0], ABSENT, "-", *at, stdin=ids[1])
    assert done.status == 1
    assert [line.split()[0] for line in done.lines] == ids
    assert "nobodys: no job among the newest 2" in done.err
    assert ABSENT in done.err
    both = await ran("status", ids[0][:3], *at)
    assert both.status == 2
    assert all(one in both.err for one in ids)


async def test_a_job_that_failed_or_was_cancelled_is_a_failure(service: RunningService) -> None:
    at = ("--url", service.url)
    [job_id] = (await ran("submit", "x", "--not-before", LATER, *at)).lines
    assert (await ran("cancel", job_id, *at)).lines[0].split()[:2] == [job_id, "cancelled"]
    for command in ("result", "watch"):
        done = await ran(command, job_id, *at)
        assert done.status == 1
        assert "the job was cancelled" in done.err
    as_json = await ran("result", job_id, "--json", *at)
    assert (as_json.objects[0]["status"], as_json.error["code"]) == ("cancelled", "cancelled")
    unknown = await ran("ask", "-m", "absent", "x", *at)
    assert unknown.status == 1
    assert "absent" in unknown.err


async def test_cancel_all_says_how_many_and_wants_a_word_first(service: RunningService) -> None:
    at = ("--url", service.url)
    for model in ("llama3.2", "llama3.2", "thinker"):
        await ran("submit", "x", "-m", model, "--not-before", LATER, *at)
    asked = await ran("cancel", "--all", *at)
    assert (asked.status, asked.out) == (2, "")
    assert "3 jobs of one's own would be cancelled: give --yes" in asked.err
    assert (await ran("cancel", "--all", "--model", "thinker", "--yes", *at)).lines == ["cancelled 1 job"]
    assert (await ran("cancel", "--all", "--status", "queued", "--everybody", "--yes", "--json", *at)).objects == [
        {"cancelled": 2}
    ]
    none = await ran("cancel", "--all", *at)
    assert (none.status, none.out, none.err) == (0, "", "there is nothing to cancel\n")


async def test_jobs_are_listed_newest_first(service: RunningService) -> None:
    at = ("--url", service.url)
    assert (await ran("list", *at)).err == "there are no such jobs\n"
    ids = [(await ran("submit", prompt, "--wait", *at)).err.split()[1] for prompt in ("one\nline", "two", "three")]
    head, *rows = (await ran("list", *at)).lines
    assert head.split() == ["id", "status", "model", "age", "prompt"]
    assert [row.split()[-1] for row in rows] == ["three", "two", "line"]
    for row, job_id in zip(rows, reversed(ids), strict=True):
        shown = row.split()[0]
        assert job_id.startswith(shown)
        assert (await ran("status", shown, *at)).status == 0
    assert [job["id"] for job in (await ran("list", "-n", "2", "--json", *at)).objects] == ids[:0:-1]
    assert len((await ran("list", "--text", "two", "--json", *at)).lines) == 1
    assert len((await ran("list", "--status", "failed", "--json", *at)).lines) == 0
    assert len((await ran("list", "--model", "llama3.2", "--json", *at)).lines) == 3


async def test_the_service_is_looked_after(service: RunningService) -> None:
    at = ("--url", service.url)
    await ran("ask", "hello", *at)
    assert (await ran("models", *at)).lines[1].startswith("llama3.2:latest")
    assert {model["name"] for model in (await ran("models", "--json", *at)).objects} >= {"llama3.2:latest"}
    health = await ran("health", *at)
    assert (health.status, health.lines[0].split()[:2]) == (0, ["service", "ok"])
    assert (await ran("health", "--json", *at)).objects[0]["service"] == "corral"
    service.jobs.ledger.store_trouble = "the disk is full"
    try:
        ill = await ran("health", *at)
        assert (ill.status, "the disk is full" in ill.out) == (1, True)
    finally:
        service.jobs.ledger.store_trouble = None


async def with_key(service: RunningService, *command: str, key: str = KEY) -> Ran:
    return await ran(*command, environ={"CORRAL_URL": service.url, "CORRAL_KEY": key})


async def test_with_keys_an_admin_sees_and_does_all() -> None:
    async with service_with_keys() as service:
        assert (await with_key(service, "ask", "hello")).status == 0
        stats = await with_key(service, "stats")
        assert stats.lines[0].startswith("1 requests")
        assert (await with_key(service, "stats", "--json")).objects[0]["totals"]["requests"] == 1
        assert (await with_key(service, "backends")).lines[0].split()[:2] == ["simulated", "ok"]
        assert (await with_key(service, "backends", "--json")).objects[0]["name"] == "simulated"
        created = await with_key(service, "keys", "create", "--name", "anna")
        assert created.status == 0
        assert f"at the service {service.url}" in created.err
        own = await with_key(service, "submit", "mine", "--wait", key=created.out.strip())
        assert own.status == 0
        assert len((await with_key(service, "list", "--json", key=created.out.strip())).objects) == 1
        assert len((await with_key(service, "list", "--json")).objects) == 2
        keys = (await with_key(service, "keys", "list", "--json")).objects
        key_id = next(key["id"] for key in keys if key["name"] == "anna")
        revoked = await with_key(service, "keys", "revoke", key_id)
        assert (revoked.status, f"at the service {service.url}" in revoked.err) == (0, True)
        assert (await with_key(service, "list", key=created.out.strip())).status == 4
        gone = await with_key(service, "keys", "revoke", ABSENT)
        assert (gone.status, "`keys list` shows those there are" in gone.err) == (1, True)
        refused = await with_key(service, "keys", "create", "--name", "x", "--owner-header", "Host")
        assert (refused.status, "owner_header" in refused.err) == (2, True)


@pytest.mark.parametrize("command", [*ALL, ["keys", "list"]], ids=words)
async def test_without_a_key_nothing_is_told(command: list[str]) -> None:
    async with service_with_keys() as service:
        done = await ran(*command, "--url", service.url)
        if command == ["health"]:
            # Whether it lives is everybody's to know.
            assert (done.status, len(done.lines)) == (0, 1)
            return
        assert (done.status, done.out) == (4, "")
        assert "key" in done.err
        as_json = await ran(*command, "--url", service.url, "--key", "wrong", "--json")
        assert (as_json.status, as_json.error["status_code"]) == (4, 401)


async def test_what_a_key_may_not_do_is_4_too() -> None:
    async with service_with_keys() as service:
        key = (await made_key(service, models=["llama3.2"]))["key"]
        for command in (["ask", "-m", "thinker", "x"], ["keys", "list"], ["backends"]):
            assert (await with_key(service, *command, key=key)).status == 4, command


@pytest.mark.parametrize("command", ALL, ids=words)
async def test_at_a_bare_ollama_what_works_works_and_the_rest_says_what_is_missing(
    command: list[str], bare: SimulatedServer
) -> None:
    done = await ran(*command, "--url", bare.url)
    if command[0] in ("ask", "models"):
        assert (done.status, done.err) == (0, "")
        assert done.out
        assert (await ran(*command, "--url", bare.url, "--json")).objects
        return
    assert (done.status, done.out) == (1, "")
    assert "bare Ollama" in done.err
    as_json = await ran(*command, "--url", bare.url, "--json")
    assert as_json.error["code"] == "not_supported"


@pytest.mark.parametrize("command", [*ALL, ["keys", "list"], ["keys", "revoke", ABSENT]], ids=words)
async def test_with_nobody_there_each_command_ends_after_one_try(command: list[str]) -> None:
    done = await ran(*command, "--url", NOBODY)
    assert (done.status, done.out) == (3, "")
    assert "nobody answers" in done.err
    as_json = await ran("--json", "--url", NOBODY, *command)
    assert (as_json.status, as_json.error["code"]) == (3, "connection_failed")


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_proxy_whose_service_is_away_is_not_taken_for_an_ollama(status: int) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(whole(b"<html>Bad Gateway</html>", status=f"{status} Away", content_type="text/html"))

    async with raw_server(answer) as proxy:
        for command in (["list"], ["ask", "hello"], ["models"]):
            done = await ran(*command, "--url", proxy.url)
            assert (done.status, "its server is away" in done.err) == (3, True)


async def test_without_an_address_the_service_that_runs_here_is_asked_through_its_socket(tmp_path: Path) -> None:
    from aiohttp import web

    from service.cli.admin_socket import admin_socket_path
    from tests.support.running import service_in_process

    async with service_in_process(folder=tmp_path) as service:
        socket = admin_socket_path(service.config)
        assert socket is not None
        await web.UnixSite(service.runner, socket).start()
        # A key for other servers must not get in the way.
        here = {"OLLAMA_PROXY_DB": str(service.config.database.path), "CORRAL_KEY": "of-another-server"}
        for command in (["models"], ["stats"], ["health"], ["backends"], ["keys", "list"]):
            done = await ran(*command, environ=here)
            assert done.status == 0, done
        config = tmp_path / "own.toml"
        config.write_text(f"[database]\npath = {json.dumps(str(service.config.database.path))}\n")
        for place in (["--config", str(config), "health"], ["health", "--config", str(config)]):
            done = await ran(*place)
            assert (done.status, str(socket) in done.out) == (0, True)


async def test_a_configuration_of_something_else_in_this_folder_keeps_nobody_from_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text("[something]\nelse = 1\n")
    monkeypatch.chdir(tmp_path)
    done = await ran("models", environ={"OLLAMA_PROXY_DB": str(tmp_path / "queue.db")})
    assert "config.toml: " in done.err
    assert "http://localhost:8000 is asked" in done.err
    named = await ran("models", "--config", "config.toml")
    assert (named.status, "is asked" in named.err) == (1, False)


async def test_ids_of_standard_input_may_be_anything(service: RunningService) -> None:
    done = await ran("status", "-", "--url", service.url, stdin=b"\xff\xfe \x1b[2J\n")
    assert (done.status, done.out) == (1, "")
    assert "Error" not in done.err


async def test_the_version_is_told() -> None:
    assert (await ran("version")).out.startswith("corral ")
    assert "version" in (await ran("version", "--json")).objects[0]


async def test_without_a_command_corral_prints_its_help_with_every_command_and_status() -> None:
    done = await ran()
    assert (done.status, done.err) == (0, "")
    assert (await ran("--help")).out == done.out
    for status in ("0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "124", "130"):
        assert f"\n    {status}" in done.out
