"""How the service starts, and how it refuses to: with one line that says the thing, the value and the remedy."""

from __future__ import annotations

import signal
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from service.job import FINAL
from service.simulated import RECORDED_MODELS, SimulatedServer, SimulatedSettings
from service.store.migrations import NEWEST
from tests.support.processes import ChildProcess, running_service, service_settings, started

SETTINGS = SimulatedSettings(models=RECORDED_MODELS)


async def one_line_of_refusal(process: ChildProcess) -> str:
    """The only line on stderr of a process that has ended with status 1 and without a word on stdout."""
    assert await process.ended() == 1, process.said()
    assert process.output == []
    [line] = process.errors
    assert line.startswith("corral: ")
    return line


async def health_of(url: str) -> dict[str, object]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/health") as response:
        assert response.status == 200
        health: dict[str, object] = await response.json()
        return health


async def test_it_needs_no_file_no_folder_and_no_backend(tmp_path: Path) -> None:
    async with running_service(tmp_path, OLLAMA_PROXY_DB=str(tmp_path / "new" / "folder" / "queue.db")) as service:
        await service.process.hears("does not answer, its jobs wait")
        assert (await health_of(service.url))["status"] == "waiting for a backend"
    assert (tmp_path / "new" / "folder" / "queue.db").exists()


async def test_it_says_which_backend_it_has_found(tmp_path: Path) -> None:
    async with SimulatedServer(SETTINGS) as ollama, running_service(tmp_path, OLLAMA_URL=ollama.url) as service:
        await service.process.hears(f"answers: Ollama .* at {ollama.url}")
        assert (await health_of(service.url))["status"] == "ok"


async def test_it_says_loudly_that_anybody_may_use_it(tmp_path: Path) -> None:
    async with running_service(tmp_path) as service:
        await service.process.hears("^OPEN: .*CORRAL_AUTH__REQUIRED=true")


async def test_it_says_how_to_get_in_where_keys_are_required_and_there_is_none(tmp_path: Path) -> None:
    async with running_service(tmp_path, CORRAL_AUTH__REQUIRED="true") as service:
        await service.process.hears("^CLOSED: .*keys create --name me --role admin")
    async with running_service(
        tmp_path, CORRAL_AUTH__REQUIRED="true", DEMO_ADMIN_KEY="a-demo-key-of-an-admin"
    ) as service:
        await health_of(service.url)
        assert "CLOSED" not in service.process.said()


async def test_the_command_line_chooses_host_and_port_over_everything_else(tmp_path: Path) -> None:
    taken_by_others = {"CORRAL_SERVER__HOST": "203.0.113.1", "CORRAL_SERVER__PORT": "1"}
    async with running_service(tmp_path, "--host", "127.0.0.1", "--port", "0", **taken_by_others) as service:
        await health_of(service.url)


async def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = service_settings(tmp_path, CORRAL_SERVER__PORT=str(port))
        async with started("service", folder=tmp_path, **settings) as process:
            line = await one_line_of_refusal(process)
    assert f"127.0.0.1:{port}" in line
    assert "--port" in line


async def test_a_second_process_on_the_same_database_is_one_line(tmp_path: Path) -> None:
    async with running_service(tmp_path) as first:
        async with started("service", folder=tmp_path, **service_settings(tmp_path)) as process:
            line = await one_line_of_refusal(process)
        assert str(tmp_path / "queue.db") in line
        assert f"pid {first.process.pid}" in line
        assert "OLLAMA_PROXY_DB" in line
        await health_of(first.url)


async def test_a_database_of_a_killed_service_is_free_at_once(tmp_path: Path) -> None:
    async with running_service(tmp_path) as service:
        await service.process.kill()
    async with running_service(tmp_path) as service:
        await health_of(service.url)


async def test_a_database_of_a_newer_version_is_one_line_and_left_alone(tmp_path: Path) -> None:
    async with running_service(tmp_path) as service:
        await service.process.kill()
    path = tmp_path / "queue.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO schema_migrations VALUES (?, 0)", [NEWEST + 1])
    async with started("service", folder=tmp_path, **service_settings(tmp_path)) as process:
        line = await one_line_of_refusal(process)
    assert str(path) in line
    assert "newer" in line
    assert "upgrade" in line
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT max(number) FROM schema_migrations").fetchone() == (NEWEST + 1,)


async def test_a_file_that_is_no_database_is_one_line_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.write_text("These are my notes, not a database. " * 100, encoding="utf-8")
    before = path.read_bytes()
    async with started("service", folder=tmp_path, **service_settings(tmp_path)) as process:
        assert str(path) in await one_line_of_refusal(process)
    assert path.read_bytes() == before


async def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = service_settings(tmp_path, OLLAMA_PROXY_DB=str(tmp_path / "file" / "queue.db"))
    async with started("service", folder=tmp_path, **settings) as process:
        line = await one_line_of_refusal(process)
    assert str(tmp_path / "file" / "queue.db") in line
    assert "OLLAMA_PROXY_DB" in line


@pytest.mark.parametrize(
    ("written", "key", "value"),
    [
        ("[server]\nport = 80000\n", "server.port", "80000"),
        ("[server]\nprot = 8000\n", "server.prot", ""),
        ("[queue]\nmax_size = 'many'\n", "queue.max_size", "many"),
        ("[[backends]]\nurl = 'box:11434'\n", "url", "box:11434"),
        ("[server\n", "corral.toml", ""),
    ],
)
async def test_a_wrong_configuration_file_is_one_line(tmp_path: Path, written: str, key: str, value: str) -> None:
    file = tmp_path / "corral.toml"
    file.write_text(written, encoding="utf-8")
    async with started("service", "--config", str(file), folder=tmp_path) as process:
        line = await one_line_of_refusal(process)
    assert key in line
    assert value in line


async def test_a_configuration_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    async with started("service", "--config", "nowhere.toml", folder=tmp_path) as process:
        assert "nowhere.toml" in await one_line_of_refusal(process)


@pytest.mark.parametrize(
    ("name", "value"),
    [("CORRAL_SERVER__PORT", "eighty"), ("CORRAL_SERVER__PROT", "80"), ("OLLAMA_URL", "box"), ("CORRAL_BACKENDS", "[")],
)
async def test_a_wrong_variable_is_one_line_that_names_it(tmp_path: Path, name: str, value: str) -> None:
    async with started("service", folder=tmp_path, **{name: value}) as process:
        assert name in await one_line_of_refusal(process)


async def test_check_finds_all_well_while_nothing_runs(tmp_path: Path) -> None:
    async with SimulatedServer(SETTINGS) as ollama:
        settings = service_settings(tmp_path, OLLAMA_URL=ollama.url)
        async with started("service", "check", folder=tmp_path, **settings) as check:
            assert await check.ended() == 0, check.said()
    found = "\n".join(check.output)
    assert "not running" in found
    assert f"{tmp_path / 'queue.db'}: ok" in found
    assert "tiny1:latest" in found
    assert check.output[-1] == "all is well"


async def test_check_works_while_the_service_runs(tmp_path: Path) -> None:
    async with (
        SimulatedServer(SETTINGS) as ollama,
        running_service(tmp_path, OLLAMA_URL=ollama.url) as service,
        started("service", "check", folder=tmp_path, **service_settings(tmp_path, OLLAMA_URL=ollama.url)) as check,
    ):
        assert await check.ended() == 0, check.said()
        await health_of(service.url)
    found = "\n".join(check.output)
    assert "running" in found
    assert "not running" not in found
    assert "held by the running service" in found


async def test_check_tells_of_a_backend_that_is_not_there(tmp_path: Path) -> None:
    async with started("service", "check", folder=tmp_path, **service_settings(tmp_path)) as check:
        assert await check.ended() == 1, check.said()
    found = "\n".join(check.output)
    assert "http://127.0.0.1:9" in found
    assert "OLLAMA_URL" in found
    assert check.errors == []


async def test_check_tells_of_a_database_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "queue.db").write_text("my notes " * 500, encoding="utf-8")
    async with (
        SimulatedServer(SETTINGS) as ollama,
        started("service", "check", folder=tmp_path, **service_settings(tmp_path, OLLAMA_URL=ollama.url)) as check,
    ):
        assert await check.ended() == 1, check.said()
    assert [line for line in check.output if str(tmp_path / "queue.db") in line and "FAILED" in line]
    assert check.errors == []


async def test_the_demo_answers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    arguments = ("demo", "--host", "127.0.0.1", "--port", "0")
    async with running_service(home, *arguments, TMPDIR=str(temporary)) as demo, aiohttp.ClientSession() as session:
        await demo.process.hears("^DEMO: answers are simulated")
        async with session.post(f"{demo.url}/api/v1/prompt", json={"prompt": "Are you real?"}) as response:
            job = await response.json()
        status = job["status"]
        while status not in FINAL:
            address = f"{demo.url}/api/v1/prompt/{job['id']}/status?wait=60&status={status}"
            async with session.get(address) as response:
                status = (await response.json())["status"]
        async with session.get(f"{demo.url}/api/v1/prompt/{job['id']}/result") as response:
            assert "simulated" in (await response.json())["result"]
        demo.process.send(signal.SIGTERM)
        assert await demo.process.ended() == 0, demo.process.said()
    assert list(home.iterdir()) == []
    assert list(temporary.iterdir()) == []


COMMANDS = [("check",)]
"""What is about the service on this machine. The others ask whichever service CORRAL_URL names."""
SERVING = [("demo",), ()]
CLIENTS = {"CORRAL_URL": "http://127.0.0.1:9", "CORRAL_KEY": "sk-of-the-client", "CORRAL_DEBUG": "1"}


async def test_what_serves_or_checks_neither_reads_nor_refuses_the_variables_of_the_client(tmp_path: Path) -> None:
    async with SimulatedServer(SETTINGS) as ollama:
        said: dict[tuple[str, ...], str] = {}
        for serving in SERVING:
            folder = tmp_path / "_".join(("with", *serving))
            folder.mkdir()
            (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in CLIENTS.items()))
            settings = service_settings(folder, OLLAMA_URL=ollama.url, **CLIENTS)
            async with running_service(folder, *serving, OLLAMA_URL=ollama.url, **CLIENTS) as service:
                await health_of(service.url)
                for command in () if serving else COMMANDS:
                    async with started("service", *command, folder=folder, **settings) as process:
                        assert await process.ended() == 0, process.said()
                        said[command] = process.said()
                said[serving] = service.process.said()
    for words in said.values():
        assert "CORRAL_" not in words.replace("CORRAL_AUTH__REQUIRED", "").replace("CORRAL_SERVER__HOST", "")
        assert not [value for value in CLIENTS.values() if len(value) > 1 and value in words]
    assert list(said) == [SERVING[0], *COMMANDS, ()]
