"""Every row of the fault matrix, and the matrix on its page."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.simulated import FaultKind
from tests.faults import ROWS, Row, ollama_rows, stream_rows, time_rows, version_rows
from tests.faults.table import rendered, written


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_after_this_fault_the_right_thing_happens(row: Row, tmp_path: Path) -> None:
    await row.check(tmp_path)


def test_every_fault_that_ollama_can_be_made_to_have_is_in_the_matrix() -> None:
    rows = (ollama_rows, stream_rows, time_rows, version_rows)
    source = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in rows)
    assert [kind.name for kind in FaultKind if f"FaultKind.{kind.name}" not in source] == []


def test_the_matrix_on_its_page_is_this_one() -> None:
    assert written() == rendered(ROWS), "write it anew with: python -m tests.faults"
