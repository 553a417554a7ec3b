"""What a command says: what was asked for on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from corral.cli.control_characters import harmless, in_a_cell


class Console:
    """The two streams. On a terminal nothing of what others wrote steers it; into a pipe the bytes go as they are."""

    def __init__(self, *, is_json: bool = False, is_quiet: bool = False, no_color: bool = False) -> None:
        self.is_json = is_json
        self.is_quiet = is_quiet
        self._no_color = no_color

    @property
    def is_terminal(self) -> bool:
        """Whether what was asked for goes to a terminal."""
        return _is_terminal(sys.stdout)

    @property
    def has_moving_notes(self) -> bool:
        """Whether notes may be written over one another."""
        return _is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb" and not self.is_quiet and not self.is_json

    def has_color(self, stream: TextIO) -> bool:
        """``--no-color`` and NO_COLOR forbid it, FORCE_COLOR wants it, and else a terminal has it that is not dumb."""
        if self._no_color or os.environ.get("NO_COLOR"):
            return False
        if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
            return True
        return _is_terminal(stream) and os.environ.get("TERM") != "dumb"

    def say(self, text: str) -> None:
        """A line of what was asked for."""
        self.write(text + "\n")

    def write(self, text: str) -> None:
        """A piece of what was asked for, at once."""
        _write(sys.stdout, harmless(text) if self.is_terminal else text)

    def say_json(self, value: Any) -> None:
        """One value on one line."""
        text = json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
        try:
            text.encode()
        except UnicodeEncodeError:
            text = json.dumps(value)
        self.say(text)

    def say_table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Rows under their names: cut to a terminal's width, and whole into a pipe."""
        lines = [tuple(in_a_cell(cell) for cell in row) for row in rows]
        if self.is_terminal:
            # Loaded where it is seen: it takes longer than everything else of a command.
            from corral.cli.terminal_table import draw_table

            draw_table(columns, lines, has_color=self.has_color(sys.stdout))
            return
        everything = [tuple(columns), *lines]
        widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
        for line in everything:
            self.say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def note(self, text: str) -> None:
        """What there is to know beside it; not with ``--quiet``."""
        if not self.is_quiet:
            self._tell(text)

    def fail(self, text: str) -> None:
        """Why the command ends."""
        self._tell(text)

    def fail_json(self, value: Any) -> None:
        """The same for programs."""
        _write(sys.stderr, json.dumps(value) + "\n")

    def note_json(self, value: Any) -> None:
        """A note for programs."""
        if not self.is_quiet:
            _write(sys.stderr, json.dumps(value) + "\n")

    def note_piece(self, text: str) -> None:
        """A piece of what is written over: the caller's own control characters reach the terminal."""
        _write(sys.stderr, text)

    @property
    def has_color_of_notes(self) -> bool:
        """Whether notes may be dimmed."""
        return self.has_color(sys.stderr)

    def note_text(self, text: str) -> None:
        """A piece of others' text between the notes."""
        _write(sys.stderr, harmless(text) if _is_terminal(sys.stderr) else text)

    def _tell(self, text: str) -> None:
        _write(sys.stderr, (harmless(text) if _is_terminal(sys.stderr) else text) + "\n")


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _write(stream: TextIO | None, text: str) -> None:
    """UTF-8 whatever the locale says; halves of characters, which it cannot hold, as question marks."""
    if stream is None:
        return
    data = text.encode("utf-8", "replace")
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(data.decode())
    else:
        stream.flush()
        buffer.write(data)
        buffer.flush()
    stream.flush()
