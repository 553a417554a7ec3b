"""Text of others on a terminal: what a terminal would obey is shown and not sent."""

from __future__ import annotations

_KEPT = "\t\n"
_SHOWN = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in _KEPT}
"""C0, DEL and C1 (ECMA-48), but for tab and newline."""


def harmless(text: str) -> str:
    """The text with each control character as an escape such as ``\\x1b``."""
    return text if text.isprintable() else text.translate(_SHOWN)


def on_one_line(text: str) -> str:
    """The same, with tabs and newlines as blanks: for a cell of a table, or a note."""
    return harmless(" ".join(text.split()))
