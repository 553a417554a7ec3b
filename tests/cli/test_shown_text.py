"""Text of others on terminals and in the log: nothing in it is obeyed, and none of it looks like another line."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.logs import LineFormatter, note, say
from service.shown_text import shown
from tests.support.checkout import ROOT
from tests.support.command_line import ran
from tests.test_house import places

FAKE = "2026-01-01 00:00:00,000 CRITICAL service.app: all is lost"
HOSTILE = {
    f"a\n{FAKE}": rf"a\n{FAKE}",
    "a\r\nb": r"a\r\nb",
    "a\rb": r"a\rb",
    "\x1b[2J\x1b]0;title\x07": r"\x1b[2J\x1b]0;title\x07",
    "\x9b2J\x85b": r"\x9b2J\x85b",
    "nul\0del\x7ftab\tback\b": r"nul\x00del\x7ftab\tback\x08",
    "lines\u2028and\u2029paragraphs": r"lines\u2028and\u2029paragraphs",
    "gpj.\u202eexe\u2066x\u2069": r"gpj.\u202eexe\u2066x\u2069",
    "adm\u200bin\ufeff\u200f\U000e0041": r"adm\u200bin\ufeff\u200f\U000e0041",
    "half \ud800": r"half \ud800",
}
PLAIN = ("", "llama3.2:latest", "Wörter 😀 漢字 …", "back\\slash \\n", "no break")
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_terminal_would_obey_is_shown_as_such(text: str) -> None:
    assert shown(text) == HOSTILE[text]


@pytest.mark.parametrize("text", PLAIN)
def test_all_else_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == text


def logged(message: str, *arguments: object, error: BaseException | None = None) -> list[str]:
    """What the log has of an event, as lines."""
    info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("service.x", logging.INFO, "x.py", 1, message, arguments, info)
    text = LineFormatter().format(record)
    assert not CONTROLS.search(text)
    return text.split("\n")


@pytest.mark.parametrize("text", HOSTILE)
def test_an_event_is_one_line_of_the_log_whatever_text_is_in_it(text: str) -> None:
    [line] = logged("the model %s of %r", text, text)
    assert HOSTILE[text] in line


@pytest.mark.parametrize("text", HOSTILE)
def test_no_line_of_a_traceback_looks_like_another_event(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError as error:
        [_, *further] = logged("it failed", error=error)
    assert "Traceback" in further[0]
    assert {line[:2] for line in further} == {"  "}


async def test_the_command_lines_tables_hold_what_they_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = {"OLLAMA_PROXY_DB": str(tmp_path / "queue.db")}
    names = [text for text in HOSTILE if "\0" not in text and "\ud800" not in text]
    for name in names:
        assert (await ran("keys", "create", f"--name={name}", environ=here)).status == 0
    listed = await ran("keys", "list", environ=here)
    head, *rows = listed.lines
    assert not CONTROLS.search(listed.out)
    assert len(rows) == len(names)
    assert {row.index(" user ") for row in rows} == {head.index("role") - 1}
    for name, row in zip(names, rows, strict=True):
        assert f" {HOSTILE[name]} " in row
    note(names[3])
    say(names[3])
    assert capsys.readouterr() == (f"{HOSTILE[names[3]]}\n", f"{HOSTILE[names[3]]}\n")


FAILING = """
import sys, threading, warnings
from service.cli.logs import begin_log, say
begin_log()
say("Wörter \\x1b[2J")
warnings.warn("a \\x1b[2J warning")
class Dying:
    def __del__(self):
        raise ValueError("\\x1b[2J in an end")
Dying()
def fail():
    raise ValueError("\\x1b[2J in a thread\\nCRITICAL fake")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
raise ValueError("\\x1b[2J in all\\nCRITICAL fake")
"""


def test_what_python_itself_would_write_is_a_part_of_the_log() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILING], cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii"}, text=True,
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "W\\xf6rter \\x1b[2J\n")
    assert not CONTROLS.search(done.stderr)
    events = [line for line in done.stderr.splitlines() if not line.startswith("  ")]
    assert [line.split()[2] for line in events] == ["WARNING", "ERROR", "CRITICAL", "CRITICAL"]
    assert done.stderr.count("ValueError: \\x1b[2J in a") == 3


def test_only_one_place_prints() -> None:
    where = "service/*.py", "service/[!cs]*/**/*.py", "service/cli/*.py"
    printing = {line.split(":")[0] for line in places(r"\bprint\(", *where)}
    assert printing == {"service/cli/logs.py"}
