"""``--retry-failed``: which lines of a finished output failed, and what became of them put into their places."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from corral.batch.inputs import table_row
from corral.batch.lines import Line, Outcome
from corral.batch.outputs import OutputError
from corral.batch.rendering import Form, Renderer
from corral.errors import ConfigurationError

_LONGEST_LINE = 256 * 1024 * 1024


class _Written(NamedTuple):
    """A line of the output as it stands there."""

    text: bytes
    """With its end."""
    id: Any
    place: int | None
    is_good: bool


def failed_places(output: Path, renderer: Renderer, lines: Iterator[Line], total: int) -> set[int]:
    """The places of those that failed. Raises ConfigurationError where it is not the whole output of this input."""
    failed: set[int] = set()
    count = 0
    for place, written in enumerate(_written(output, renderer)):
        line = next(lines, None)
        if line is None or not _belongs(written, line, place):
            raise _refusal(output, f"line {place + 1} is not that of the input")
        if not written.is_good:
            failed.add(place)
        count += 1
    if count != total:
        raise _refusal(output, f"it has {count} lines, and the input {total}")
    return failed


def merge(
    output: Path,
    failures: Path,
    renderer: Renderer,
    lines: Iterator[Line],
    outcome_of: Callable[[int], Outcome | None],
    mark_of: Callable[[int], str],
    failures_head: bytes,
) -> None:
    """Put the new outcomes into their places, and write anew which lines have failed. Both files are replaced whole."""
    merged, left = _beside(output), _beside(failures)
    has_failed = False
    try:
        with merged.open("wb") as into, left.open("wb") as failed:
            into.write(renderer.head)
            failed.write(failures_head)
            for place, written in enumerate(_written(output, renderer)):
                line, outcome = next(lines), outcome_of(place)
                into.write(written.text if outcome is None else renderer.line(line, outcome, mark_of(place)))
                if not (written.is_good if outcome is None else outcome.is_good):
                    failed.write(line.source + b"\n")
                    has_failed = True
            for file in (into, failed):
                file.flush()
                os.fsync(file.fileno())
        os.replace(merged, output)
        if has_failed:
            os.replace(left, failures)
        else:
            failures.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: {error.strerror or error}") from error
    finally:
        merged.unlink(missing_ok=True)
        left.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _written(output: Path, renderer: Renderer) -> Iterator[_Written]:
    try:
        if renderer.form in (Form.CSV, Form.TSV):
            yield from _rows(output, renderer)
        else:
            yield from _json_lines(output, renderer.form)
    except (OSError, ValueError, csv.Error) as error:
        raise _refusal(output, f"it cannot be read ({error})") from error


def _json_lines(output: Path, form: Form) -> Iterator[_Written]:
    with output.open("rb") as file:
        while text := file.readline(_LONGEST_LINE):
            found = json.loads(text)
            if not isinstance(found, dict):
                raise ValueError("a line is no object")
            if form is Form.OPENAI:
                response = found.get("response") or {}
                is_good = response.get("status_code") == 200 and not found.get("error")
                yield _Written(text, found.get("custom_id"), None, is_good)
            else:
                yield _Written(text, found.get("id"), found.get("index"), found.get("status") == "completed")


def _rows(output: Path, renderer: Renderer) -> Iterator[_Written]:
    csv.field_size_limit(_LONGEST_LINE)
    delimiter = "\t" if renderer.form is Form.TSV else ","
    with output.open("rb") as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        if next(reader, None) != renderer.names:
            raise ValueError("its columns are others")
        for row in reader:
            cells = dict(zip(renderer.names, row, strict=True))
            index, own_id = cells[renderer.column("index")], cells[renderer.column("id")]
            is_good = cells[renderer.column("status")] == "completed"
            yield _Written(table_row(row, delimiter) + b"\n", own_id, int(index), is_good)


def _belongs(written: _Written, line: Line, place: int) -> bool:
    if written.place is not None and written.place != place:
        return False
    own_id = "" if line.id is None else line.id
    return written.id == line.id or str(written.id) == str(own_id)


def _refusal(output: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"{output}: is not the finished output of this input: {why}")
