"""The input of a batch: which format it has, and its lines, which are read twice and never held together."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import jiter

from corral.batch.lines import Kind, Line
from corral.batch.prompts import Defaults, LineError, read_line, read_row
from corral.errors import ConfigurationError

FORMATS = ("jsonl", "csv", "tsv", "txt")
_BY_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "txt"}
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_LONGEST_LINE = 64 * 1024 * 1024
_MOST_SHOWN = 20
STANDARD_INPUT = "-"


class Problem(NamedTuple):
    """What is wrong with a line."""

    number: int
    words: str


@dataclass
class Checked:
    """What was found when all of the input was read once."""

    count: int = 0
    digest: str = ""
    """Of the input's bytes and of all that makes requests of them."""
    kind: Kind | None = None
    models: Counter[str] = field(default_factory=Counter)
    """"" stands for the server's default."""
    characters: int = 0
    """Of prompts and messages, for an estimate."""
    answer_tokens: int | None = 0
    """What the lines allow together; None where one does not say."""
    columns: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    """The first 20."""
    problem_count: int = 0

    def add_problem(self, number: int, words: str) -> None:
        self.problem_count += 1
        if len(self.problems) < _MOST_SHOWN:
            self.problems.append(Problem(number, words))


class _Record(NamedTuple):
    """A line before it is understood."""

    number: int
    value: Any
    source: bytes


class Input:
    """An input, which must not change meanwhile. Each reading of it has a place of its own."""

    def __init__(self, path: Path, form: str, defaults: Defaults, limit: int | None) -> None:
        self._path = path
        self.form = form
        self._defaults = defaults
        self._limit = limit
        self.columns: tuple[str, ...] = ()
        """Of a table, once its head was read."""

    def check(self) -> Checked:
        """Read all of it. Raises ConfigurationError for what is no such file."""
        checked = Checked()
        known: set[int] = set()
        try:
            for record in self._records(checked):
                try:
                    self._check_line(self._line(checked.count, record), checked, known)
                except LineError as error:
                    checked.add_problem(record.number, str(error))
                checked.count += 1
        except (csv.Error, EOFError, gzip.BadGzipFile, UnicodeDecodeError, OSError) as error:
            raise ConfigurationError(f"the input cannot be read to its end: {error}") from error
        checked.columns = self.columns
        checked.digest = self._digest()
        return checked

    def lines(self, begin: int = 0) -> Iterator[Line]:
        """The lines from this place on, read anew. Raises ConfigurationError where one is wrong."""
        for index, record in enumerate(self._records(None)):
            if index < begin:
                continue
            try:
                yield self._line(index, record)
            except LineError as error:
                raise ConfigurationError(f"line {record.number}: {error}; was the input changed?") from None

    def _line(self, index: int, record: _Record) -> Line:
        if self.form in ("csv", "tsv"):
            return read_row(index, record.number, record.value, record.source, self._defaults)
        value = record.value
        if isinstance(value, LineError):
            raise value
        template = self._defaults.template
        if isinstance(value, str) and template is not None:
            value = {"prompt": template.filled({"prompt": value})}
            return read_line(index, record.number, value, record.source, _without_template(self._defaults))
        return read_line(index, record.number, value, record.source, self._defaults)

    def _check_line(self, line: Line, checked: Checked, known: set[int]) -> None:
        if checked.kind is None:
            checked.kind = line.kind
        if line.kind != checked.kind:
            raise LineError("lines of OpenAI's batch format and others do not go together; make two files of them")
        if line.kind is Kind.OPENAI:
            mark = hash(line.id)
            if mark in known:
                raise LineError(f"custom_id: {line.id!r} occurs twice")
            known.add(mark)
        checked.models[line.model or ""] += 1
        checked.characters += _characters(line.body)
        allowed = _allowed_tokens(line)
        if allowed is None or checked.answer_tokens is None:
            checked.answer_tokens = None
        else:
            checked.answer_tokens += allowed

    def _records(self, checked: Checked | None) -> Iterator[_Record]:
        records = self._rows(checked) if self.form in ("csv", "tsv") else self._text_lines()
        for count, record in enumerate(records):
            if count == self._limit:
                return
            yield record

    def _text_lines(self) -> Iterator[_Record]:
        with _unpacked(self._path) as file:
            yield from self._lines_of(file)

    def _lines_of(self, file: BinaryIO) -> Iterator[_Record]:
        number = 0
        while raw := file.readline(_LONGEST_LINE + 1):
            number += 1
            if len(raw) > _LONGEST_LINE:
                raise ConfigurationError(f"line {number}: is longer than {_LONGEST_LINE // 2**20} MiB")
            if number == 1:
                raw = raw.removeprefix(_BOM)
            source = raw.rstrip(b"\r\n")
            if source.strip():
                yield _Record(number, self._value(source), source)

    def _value(self, source: bytes) -> Any:
        """The value, or a LineError, which counts where it is looked at."""
        if self.form == "txt":
            try:
                return source.decode()
            except UnicodeDecodeError as error:
                return LineError(f"is no text in UTF-8: {error.reason} at byte {error.start + 1}")
        try:
            return jiter.from_json(source, allow_inf_nan=False, catch_duplicate_keys=True)
        except ValueError as error:
            return LineError(f"is no JSON: {error}")

    def _rows(self, checked: Checked | None) -> Iterator[_Record]:
        with _unpacked(self._path) as file:
            yield from self._rows_of(file, checked)

    def _rows_of(self, file: BinaryIO, checked: Checked | None) -> Iterator[_Record]:
        csv.field_size_limit(_LONGEST_LINE)
        delimiter = "\t" if self.form == "tsv" else ","
        with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            yield from self._read_rows(csv.reader(text, delimiter=delimiter, strict=True), delimiter, checked)

    def _read_rows(self, reader: Any, delimiter: str, checked: Checked | None) -> Iterator[_Record]:
        head = next(reader, None)
        if head is None:
            return
        self.columns = tuple(head)
        doubled = [name for name, times in Counter(head).items() if times > 1]
        if doubled or not all(head):
            what = f"the column {doubled[0]!r} occurs twice" if doubled else "a column has no name"
            raise ConfigurationError(f"the first line names the columns: {what}")
        self._require_columns(head)
        for row in reader:
            if not row:
                continue
            if len(row) > len(head) and checked is not None:
                checked.add_problem(reader.line_num, f"has {len(row)} cells, and there are {len(head)} columns")
            cells = dict(zip(head, [*row, *[""] * (len(head) - len(row))], strict=False))
            yield _Record(reader.line_num, cells, table_row(row, delimiter))

    def _require_columns(self, head: list[str]) -> None:
        template = self._defaults.template
        wanted = {"prompt"} if template is None else template.names
        if missing := sorted(wanted - set(head)):
            remedy = "; name columns in a --template" if template is None else ""
            raise ConfigurationError(f"there is no column {missing[0]!r} (there are: {', '.join(head)}){remedy}")

    def _digest(self) -> str:
        found = hashlib.sha256()
        with _unpacked(self._path) as file:
            while piece := file.read(1 << 20):
                found.update(piece)
        defaults = {name: value for name, value in self._defaults.__dict__.items() if name != "template"}
        template = self._defaults.template
        settings = [self.form, self._limit, defaults, template.text if template else None]
        found.update(json.dumps(settings, sort_keys=True).encode())
        return found.hexdigest()


def table_row(cells: Iterable[str], delimiter: str) -> bytes:
    """A row as it is written, without the end of the line."""
    text = io.StringIO()
    # Cells that hold a part of the end of a line are quoted.
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n").encode("utf-8", "replace")


@contextmanager
def opened_input(path: str, *, input_format: str | None, defaults: Defaults, limit: int | None) -> Iterator[Input]:
    """The input until the end of the block; ``-`` is standard input. Raises ConfigurationError."""
    with _in_a_file(path) as file:
        yield Input(file, input_format or _format_of(path, file), defaults, limit)


@contextmanager
def _in_a_file(path: str) -> Iterator[Path]:
    """Where it can be read twice: what comes through a pipe is kept in a file of its own."""
    try:
        if path == STANDARD_INPUT:
            with _kept(sys.stdin.buffer) as kept:
                yield kept
            return
        if Path(path).is_file():
            yield Path(path)
            return
        with open(path, "rb") as pipe, _kept(pipe) as kept:
            yield kept
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error


@contextmanager
def _kept(source: BinaryIO) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix="corral-batch-") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        yield Path(file.name)


@contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if file.peek(2)[:2] != _GZIP:
            yield file
            return
        with gzip.open(file) as unpacked:
            yield cast("BinaryIO", unpacked)


def _format_of(path: str, file: Path) -> str:
    name = Path(path)
    suffix = Path(name.stem).suffix if name.suffix.lower() == ".gz" else name.suffix
    if found := _BY_SUFFIX.get(suffix.lower()):
        return found
    try:
        with _unpacked(file) as unpacked:
            begin = unpacked.read(256)
    except (OSError, EOFError):
        begin = b""
    if begin.removeprefix(_BOM).lstrip()[:1] in (b"{", b'"'):
        return "jsonl"
    raise ConfigurationError(f"{path}: its name does not say what it is; give --input-format {'|'.join(FORMATS)}")


def _without_template(defaults: Defaults) -> Defaults:
    return Defaults(**{**defaults.__dict__, "template": None})


def _characters(body: Any) -> int:
    """Of all texts that a model reads."""
    if isinstance(body, str):
        return len(body)
    if isinstance(body, list):
        return sum(map(_characters, body))
    if isinstance(body, dict):
        read = ("prompt", "system", "messages", "content", "input", "instructions", "text")
        return sum(_characters(value) for name, value in body.items() if name in read)
    return 0


def _allowed_tokens(line: Line) -> int | None:
    options = line.body.get("options")
    found = options.get("num_predict") if isinstance(options, dict) else None
    if line.kind is Kind.OPENAI:
        if line.url == "/v1/embeddings":
            return 0
        names = ("max_completion_tokens", "max_tokens", "max_output_tokens")
        found = next((line.body[name] for name in names if name in line.body), None)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None
