"""A line of the output: JSONL, a table, or OpenAI's batch format. Everything here is pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from corral.batch.inputs import table_row
from corral.batch.lines import Kind, Line, Outcome
from corral.errors import ConfigurationError

_COLUMNS = (
    "index",
    "id",
    "status",
    "result",
    "error_code",
    "error_message",
    "model",
    "prompt_tokens",
    "completion_tokens",
    "seconds",
    "job_id",
)
_SEPARATORS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"})
"""Characters that some readers take for the end of a line. In JSON they stand in strings alone."""


class Form(StrEnum):
    """How the output is written."""

    JSONL = "jsonl"
    OPENAI = "openai"
    CSV = "csv"
    TSV = "tsv"


def form_of(path: Path, kind: Kind) -> Form:
    """By the output's name, and by what is asked. Raises ConfigurationError."""
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        if kind is Kind.OPENAI:
            raise ConfigurationError(f"{path}: lines of OpenAI's batch format are answered as JSONL; name it .jsonl")
        return Form(suffix[1:])
    return Form.OPENAI if kind is Kind.OPENAI else Form.JSONL


class Renderer:
    """Writes what became of a line. ``columns`` are the input's, where it is a table."""

    def __init__(self, form: Form, columns: Sequence[str] = ()) -> None:
        self.form = form
        self._delimiter = "\t" if form is Form.TSV else ","
        self._own = {name: name for name in _COLUMNS}
        # The input's id is the id that is told.
        self._columns = [name for name in columns if name != "id"]
        for name in _COLUMNS:
            if name in self._columns:
                self._own[name] = f"corral_{name}"

    @property
    def head(self) -> bytes:
        """What stands before the first line."""
        if self.form not in (Form.CSV, Form.TSV):
            return b""
        return table_row([*self._columns, *self._own.values()], self._delimiter) + b"\n"

    @property
    def names(self) -> list[str]:
        """Of the columns of a table."""
        return [*self._columns, *self._own.values()]

    def column(self, name: str) -> str:
        """What one of our columns is called here."""
        return self._own[name]

    def line(self, line: Line, outcome: Outcome, mark: str) -> bytes:
        """With the end of the line. ``mark`` tells the line from all others."""
        if self.form is Form.OPENAI:
            return _openai(line, outcome, mark)
        if self.form is Form.JSONL:
            return json_line(_fields(line, outcome))
        cells = [(line.columns or {}).get(name, "") for name in self._columns]
        return table_row([*cells, *map(_cell, _cells(line, outcome))], self._delimiter) + b"\n"


def json_line(value: Any) -> bytes:
    """JSON on one line, however it is split into lines."""
    try:
        text = json.dumps(value, ensure_ascii=False).translate(_SEPARATORS)
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(value).encode() + b"\n"


def _fields(line: Line, outcome: Outcome) -> dict[str, Any]:
    fields: dict[str, Any] = {"index": line.index, "id": line.id, "status": outcome.status}
    if outcome.is_good:
        fields["result"] = outcome.result
        if outcome.thinking:
            fields["thinking"] = outcome.thinking
        if outcome.tool_calls:
            fields["tool_calls"] = outcome.tool_calls
    else:
        fields["error"] = {"code": outcome.cause, "message": outcome.message}
    return fields | {
        "model": outcome.model or line.model,
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "seconds": outcome.seconds,
        "job_id": outcome.job_id,
    }


def _cells(line: Line, outcome: Outcome) -> list[Any]:
    return [
        line.index,
        line.id,
        outcome.status,
        outcome.result,
        None if outcome.is_good else outcome.cause,
        outcome.message,
        outcome.model or line.model,
        outcome.prompt_tokens,
        outcome.completion_tokens,
        outcome.seconds,
        outcome.job_id,
    ]


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _openai(line: Line, outcome: Outcome, mark: str) -> bytes:
    """The body is the drop-in reply byte for byte, but for ends of lines between its tokens."""
    head = {"id": f"batch_req_{mark}", "custom_id": line.id}
    begin = json_line(head)[:-2]
    if outcome.reply is None:
        error = {"code": outcome.cause, "message": outcome.message}
        return begin + b', "response": null, "error": ' + json_line(error)[:-1] + b"}\n"
    response = json_line({"status_code": outcome.reply_status, "request_id": outcome.request_id})[:-2]
    body = outcome.reply.strip().replace("\r\n", " ").replace("\n", " ").replace("\r", " ").translate(_SEPARATORS)
    return begin + b', "response": ' + response + b', "body": ' + body.encode() + b'}, "error": null}\n'
