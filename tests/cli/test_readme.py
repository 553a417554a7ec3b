"""README's snippets "From the shell" and "Ten thousand prompts" run as they are."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import sys
from pathlib import Path

import pytest

from corral.cli.exits import EXIT_HELP
from corral.cli.program import PLACES
from tests.batch.files import objects, openai_line, written
from tests.support.checkout import ROOT
from tests.support.processes import PATIENCE_SECONDS
from tests.support.running import RunningService
from tests.support.terminals import environment

SECTIONS = ("From the shell", "Ten thousand prompts")


def section(name: str) -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8").partition(f"\n## {name}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", SECTIONS)
async def test_each_snippet_runs_and_does_what_it_says(name: str, tmp_path: Path, service: RunningService) -> None:
    program = tmp_path / "corral"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m corral "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    (tmp_path / "error.log").write_text("the disk is full\n")
    written(tmp_path / "prompts.jsonl", "one", {"prompt": "two"})
    written(tmp_path / "requests.jsonl", openai_line("a"))
    (tmp_path / "reviews.csv").write_text("id,text\n1,lovely\n")
    snippets = re.findall(r"```sh\n(.*?)```", section(name), flags=re.DOTALL)
    assert len(snippets) == 1
    for snippet in snippets:
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-euo",
            "pipefail",
            "-c",
            snippet,
            cwd=tmp_path,
            env=environment(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}", CORRAL_URL=service.url),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        assert out
    prompts = service.ollama.observations.prompts
    if name == SECTIONS[0]:
        assert "What failed?\n\nthe disk is full\n" in prompts
    else:
        assert [one["status"] for one in objects(tmp_path / "answers.jsonl")] == ["completed"] * 2
        assert "Is this review good or bad? lovely" in prompts
        assert json.loads((tmp_path / "responses.jsonl").read_text())["response"]["status_code"] == 200


def test_every_command_and_every_exit_status_is_in_the_readme() -> None:
    text = section(SECTIONS[0])
    for command in PLACES:
        if command != "version":
            assert re.search(rf"`[^`]*\b{command}\b", text), command
    for status in re.findall(r"^  (\d+) ", EXIT_HELP, flags=re.MULTILINE):
        assert f"\n| {status} |" in text
