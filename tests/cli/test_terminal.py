"""What a terminal gets, and a pipe: the place in the queue, colours, and nothing that steers it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from service.simulated import SimulatedServer
from tests.support.command_line import ran
from tests.support.running import QUICK, RunningService, service_in_process
from tests.support.terminals import at_pipes, at_terminal

HOSTILE = "plain\ttab \x1b[31mred \x1b]52;c;aGVsbG8=\x07clip\rback \x9b2J\x7f end"
SHOWN = r"\x1b[31mred \x1b]52;c;aGVsbG8=\x07clip\x0dback \x9b2J\x7f end"
STEERING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]|\x1b[^\\[]|\r(?!\n)")
"""What no test here expects of our own writing, which uses ESC [ alone, and CR before the end of a line."""


async def test_the_place_is_shown_until_the_first_word_and_the_answer_stands_alone() -> None:
    async with service_in_process(seats=1) as service:
        stalled = service.stall()
        await service.until(await service.submit(), "processing")
        async with at_terminal("ask", "mine", "--url", service.url) as terminal:
            await terminal.shows("queued, position 1")
            stalled.release()
            assert await terminal.ended() == 0
            # The last thing before the answer wipes the place away.
            assert terminal.shown.rindex("\x1b[K") < terminal.shown.rindex("the")


async def test_a_pipe_gets_the_answer_while_the_terminal_gets_the_place() -> None:
    async with (
        service_in_process() as service,
        at_terminal("ask", "mine", "--url", service.url, is_piped=True) as terminal,
    ):
        out = await terminal.piped()
        assert await terminal.ended() == 0
        assert len(out.split()) == 20
        assert out.split()[-1] not in terminal.shown


@pytest.mark.parametrize("options", [["--quiet"], ["--json"]])
async def test_quiet_and_json_show_no_place(options: list[str]) -> None:
    async with (
        service_in_process() as service,
        at_terminal("ask", "mine", *options, "--url", service.url, is_piped=True) as terminal,
    ):
        await terminal.piped()
        assert (await terminal.ended(), terminal.shown) == (0, "")


async def test_a_dumb_terminal_is_not_written_over(service: RunningService) -> None:
    async with at_terminal("ask", "mine", "--url", service.url, environ={"TERM": "dumb"}) as terminal:
        assert await terminal.ended() == 0
        assert "\x1b" not in terminal.shown


@pytest.mark.parametrize("server", ["corral", "ollama"])
async def test_an_answer_cannot_steer_the_terminal_and_reaches_a_pipe_as_it_is(server: str) -> None:
    settings = dataclasses.replace(QUICK, answer_text=HOSTILE, tokens=None)
    async with service_in_process(settings=settings) as service, SimulatedServer(settings) as bare:
        url = service.url if server == "corral" else bare.url
        async with at_terminal("ask", "x", "--url", url) as terminal:
            assert await terminal.ended() == 0
            assert SHOWN in terminal.shown
            assert not STEERING.search(re.sub("\r\x1b\\[K", "", terminal.shown))
        status, out, _ = await at_pipes("ask", "x", "--url", url)
        assert (status, out) == (0, HOSTILE + "\n")


async def test_prompts_and_errors_cannot_steer_the_terminal_either(service: RunningService) -> None:
    await ran("submit", HOSTILE, "--url", service.url)
    for command in (["list"], ["status", "\x1b]0;x\x07"], ["ask", "-m", "no\x1b]0;x\x07", "x"]):
        async with at_terminal(*command, "--url", service.url) as terminal:
            await terminal.ended()
            assert r"\x1b" in terminal.shown
            assert not STEERING.search(re.sub("\r\x1b\\[K", "", terminal.shown))


async def test_tables_are_cut_to_the_terminal_and_whole_in_a_pipe(service: RunningService) -> None:
    await ran("submit", "word " * 40, "--wait", "--url", service.url)
    async with at_terminal("list", "--url", service.url, columns=60) as terminal:
        assert await terminal.ended() == 0
        lines = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in terminal.shown.splitlines()]
        assert max(map(len, lines)) <= 60
        assert "…" in terminal.shown
        [row] = [line.split() for line in lines if "word" in line]
        assert row[1:3] in (["completed", "llama3.2"], ["processing", "llama3.2"])
    _, out, _ = await at_pipes("list", "--url", service.url, FORCE_COLOR="1")
    assert " ".join(["word"] * 40) in out
    assert "\x1b" not in out


async def test_what_a_row_is_called_by_is_whole_however_narrow_the_terminal_is(tmp_path: Path) -> None:
    here = {"OLLAMA_PROXY_DB": str(tmp_path / "queue.db")}
    created = await ran("keys", "create", "--name", "a long name of somebody", "--json", environ=here)
    async with at_terminal("keys", "list", columns=80, environ=here) as terminal:
        assert await terminal.ended() == 0
        assert created.objects[0]["id"] in terminal.shown


@pytest.mark.parametrize(
    ("options", "environ", "is_colored"),
    [
        ([], {}, True),
        (["--no-color"], {}, False),
        ([], {"NO_COLOR": "1"}, False),
        ([], {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ([], {"TERM": "dumb"}, False),
        ([], {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    ],
)
async def test_a_table_is_styled_where_colours_may_be(
    options: list[str], environ: dict[str, str], is_colored: bool, service: RunningService
) -> None:
    await ran("submit", "x", "--url", service.url)
    async with at_terminal("list", *options, "--url", service.url, environ=environ) as terminal:
        assert await terminal.ended() == 0
        assert ("\x1b[1m" in terminal.shown) == is_colored


async def test_a_terminal_is_asked_before_many_are_cancelled(service: RunningService) -> None:
    service.stall()
    for _ in range(2):
        await service.submit()
    for answer, status in (("n", 1), ("y", 0)):
        async with at_terminal("cancel", "--all", "--url", service.url) as terminal:
            await terminal.shows("Cancel 2 jobs of one's own?")
            terminal.type(answer + "\n")
            assert await terminal.ended() == status
    assert "cancelled 2 jobs" in terminal.shown


async def test_the_bar_of_a_batch_is_drawn_on_a_terminal(service: RunningService, tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "in.txt").write_text("one\ntwo\n")
    async with at_terminal(
        "batch", str(folder / "in.txt"), "-o", str(folder / "out.jsonl"), "--url", service.url
    ) as terminal:
        assert await terminal.ended() == 0
        assert "2 of 2 lines" in terminal.shown
        assert "━" in terminal.shown
