"""The command line in this process, over real sockets: as a program runs, and what it says on both streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from click.testing import CliRunner

from corral.cli.program import run

QUIET = {"CORRAL_URL": None, "CORRAL_KEY": None, "OLLAMA_API_URL": None, "OLLAMA_MODEL": None, "CORRAL_DEBUG": None}
"""What a developer may have set for himself."""
NOBODY = "http://127.0.0.1:9"
"""The port of discarding, at which nobody listens."""


class Ran(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def objects(self) -> list[Any]:
        """The JSON of each line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """Of ``--json``."""
        found: dict[str, Any] = json.loads(self.err.splitlines()[-1])["error"]
        return found


def run_command(
    *arguments: str,
    stdin: str | bytes = "",
    environ: Mapping[str, str | None] | None = None,
    name: str = "corral",
    serves: bool = False,
) -> Ran:
    """Run a command to its end; None removes a variable."""
    runner = CliRunner(env={**QUIET, **(environ or {})})
    with runner.isolation(input=stdin) as (out, err, _):
        status = run(name, arguments, serves=serves)
        return Ran(status, out.getvalue().decode(), err.getvalue().decode())


async def ran(*arguments: str, **how: Any) -> Ran:
    """The same beside servers of this event loop."""
    return await asyncio.to_thread(run_command, *arguments, **how)
