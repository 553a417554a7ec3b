"""The test command itself: what each of its lanes runs, and what it passes on to pytest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.processes import ChildProcess, started

DURABILITY = "tests/jobs/test_durability.py"
SHORT = f"{DURABILITY}::test_a_process_that_is_killed_and_killed_again_loses_and_spoils_no_job"
LONG = f"{DURABILITY}::test_however_often_a_process_is_killed_it_loses_and_spoils_no_job"
ONLY_LIST = ("--collect-only", "-q", "-p", "no:cacheprovider")


async def run(*arguments: str) -> tuple[int, ChildProcess]:
    async with started("tests", *arguments, folder=ROOT) as command:
        return await command.ended(), command


def commands(command: ChildProcess) -> list[str]:
    """What it ran, in this order."""
    return [found[1] for line in command.output if (found := re.match(r"== (\w+): ", line))]


@pytest.mark.parametrize(("lane", "listed", "left_out"), [("--quick", SHORT, LONG), ("--long", LONG, SHORT)])
async def test_quick_and_long_run_pytest_alone_and_no_test_is_in_both(lane: str, listed: str, left_out: str) -> None:
    status, command = await run(lane, *ONLY_LIST, DURABILITY)
    assert status == 0, command.said()
    assert commands(command) == ["pytest"]
    assert listed in command.output
    assert left_out not in command.output
    assert command.output[-1] == "all passed"


async def test_what_failed_is_named_in_the_last_line(tmp_path: Path) -> None:
    status, command = await run("--quick", *ONLY_LIST, str(tmp_path / "test_nowhere.py"))
    assert status == 1
    assert command.output[-1] == "failed: pytest"


async def test_one_lane_is_chosen() -> None:
    status, command = await run("--quick", "--long")
    assert status == 2
    assert "not allowed with argument" in command.errors[-1]
