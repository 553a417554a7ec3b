"""Completion, in the shells themselves."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.access import ADMIN, service_with_keys
from tests.support.command_line import NOBODY, ran
from tests.support.outside_programs import program_path
from tests.support.processes import PATIENCE_SECONDS
from tests.support.raw_server import Exchange, raw_server
from tests.support.running import RunningService, service_in_process
from tests.support.terminals import environment

# Each prints what is offered for the words that follow, one a line.
SCRIPTS = {
    "bash": """
eval "$(corral completion bash)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_corral_completion corral
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "zsh": """
autoload -Uz compinit && compinit -u -D
compdef() { :; }
compadd() { local -a all; all=("$@"); print -rl -- "${(P)all[-1]}"; }
_describe() { print -rl -- "${(P)${@[-2]}}" "${(P)${@[-1]}}"; }
eval "$(corral completion zsh)"
words=("$@"); CURRENT=$#
_corral_completion
""",
    "fish": """
corral completion fish | source
complete --do-complete "$argv"
""",
}


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """Where ``corral`` is, as an installation has it."""
    program = tmp_path / "corral"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m corral "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return tmp_path


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process() as running:
        yield running


async def offered(shell: str, folder: Path, *line: str, **environ: str) -> str:
    """What the shell says for the line, whose last word is being written."""
    path = program_path(shell)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{shell} is not installed, and could not be")
        pytest.skip(f"{shell} is not installed")
    words = ["corral", *line]
    given = [" ".join(words)] if shell == "fish" else words
    options = ["--no-config"] if shell == "fish" else ["-f"] if shell == "zsh" else ["--norc", "--noprofile"]
    settings = environment(PATH=f"{folder}{os.pathsep}{os.environ['PATH']}", HOME=str(folder), **environ)
    process = await asyncio.create_subprocess_exec(
        path,
        *options,
        "-c",
        SCRIPTS[shell],
        *([] if shell == "fish" else [shell]),
        *given,
        env=settings,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await process.communicate()
    assert not err, err.decode()
    return out.decode()


@pytest.mark.parametrize("shell", SCRIPTS)
async def test_the_shell_itself_completes_commands_options_models_and_ids(
    shell: str, folder: Path, service: RunningService
) -> None:
    job_id = await service.finished("Why is the sky blue?")
    at = {"CORRAL_URL": service.url}
    assert "submit" in await offered(shell, folder, "sub", **at)
    assert "--system" in await offered(shell, folder, "ask", "--sys", **at)
    assert "llama3.2" in await offered(shell, folder, "ask", "-m", "lla", **at)
    assert job_id in await offered(shell, folder, "status", job_id[:4], **at)


async def completed(*line: str, **environ: str) -> list[str]:
    """What the program itself offers, as bash asks for it."""
    asked = {"_CORRAL_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "corral",
        env=environment(**asked, **environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await process.communicate()
    assert not err, err.decode()
    return [one.partition(",")[2] for one in out.decode().split()]


async def test_backends_and_the_values_of_options_are_completed_at_the_address_of_the_line(
    service: RunningService,
) -> None:
    at = ("--url", service.url)
    async with service_with_keys() as closed:
        key = ADMIN["Authorization"].removeprefix("Bearer ")
        there = ("--url", closed.url, "--key", key)
        assert await completed("corral", *there, "backends", "drain", "") == ["simulated"]
    assert await completed("corral", "list", *at, "--status", "f") == ["failed"]
    assert await completed("corral", "completion", "") == ["bash", "zsh", "fish"]
    assert "create" in await completed("corral", "keys", "")


async def test_a_service_that_is_away_or_silent_offers_nothing_and_is_not_waited_for() -> None:
    is_over = asyncio.Event()

    async def say_nothing(exchange: Exchange) -> None:
        await is_over.wait()

    assert await completed("corral", "status", "", CORRAL_URL=NOBODY) == []
    async with raw_server(say_nothing) as silent:
        # It would wait for minutes, if it waited for an answer.
        assert await completed("corral", "status", "", CORRAL_URL=silent.url) == []
        is_over.set()


async def test_another_shell_is_refused() -> None:
    done = await ran("completion", "tcsh")
    assert (done.status, "bash" in done.err) == (2, True)
