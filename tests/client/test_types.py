"""What the client gives is typed: for programs, by mypy; and as the service describes it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NotRequired, get_origin, get_type_hints

import pytest

import corral
from corral import Client, shapes
from service.api.documentation.document import build_document
from service.app import build_app
from service.config import load_config

TYPED = Path(__file__).with_name("typed_program.py")


def test_the_program_that_the_type_checker_reads_uses_every_public_name() -> None:
    text = TYPED.read_text(encoding="utf-8")
    assert [name for name in corral.__all__ if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize(
    ("kind", "of"), [("Client", "client|another"), ("AsyncClient", "client|other"), ("Job", "job"), ("AsyncJob", "job")]
)
def test_it_uses_every_method_and_attribute_of_each_class(kind: str, of: str) -> None:
    own = "async def " if kind.startswith("Async") else "def "
    parts = re.split(r"^(?=(?:async )?def )", TYPED.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = "".join(part for part in parts if part.startswith(own))
    found = set(re.findall(rf"\b(?:{of}|client\.job\([^)]*\))\.(\w+)", text))
    names = dir(Client) if kind == "Client" else vars(getattr(corral, kind))
    assert {name for name in names if not name.startswith("_")} - found == set()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (shapes.JobStatus, "JobReply"),
        (shapes.JobResult, "ResultReply"),
        (shapes.AcceptedJob, "AcceptedReply"),
        (shapes.JobError, "JobError"),
        (shapes.Timings, "Timings"),
    ],
)
def test_no_key_of_what_the_api_gives_is_missing_here_and_none_is_invented(ours: Any, theirs: str) -> None:
    document = build_document(build_app(load_config(environ={})), are_keys_required=False)
    schema = document["components"]["schemas"][theirs]
    hints = get_type_hints(ours, include_extras=True)
    assert set(hints) == set(schema["properties"])
    required = {name for name, hint in hints.items() if ours.__total__ and get_origin(hint) is not NotRequired}
    assert required == set(schema.get("required", ()))


def test_a_library_is_loaded_without_the_server_and_without_what_it_does_not_need() -> None:
    program = """
import sys
from corral import Client
tops = {name.partition(".")[0] for name in sys.modules}
print(sorted(tops & {"service", "aiohttp", "aiosqlite", "pydantic", "click", "rich"}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
