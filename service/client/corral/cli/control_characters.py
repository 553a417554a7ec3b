"""Text of others on a terminal: what a terminal would obey is shown and not sent."""

from __future__ import annotations

import unicodedata

_KEPT = "\t\n"
_SHOWN = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in _KEPT}
"""C0, DEL and C1 (ECMA-48), but for tab and newline."""


def harmless(text: str) -> str:
    """The text with each control character as an escape such as ``\\x1b``."""
    return text if text.isprintable() else text.translate(_SHOWN)


def in_a_cell(text: str) -> str:
    """The text as a cell of a table: nothing in it ends a line, has no width, or turns the direction of writing."""
    if text.isprintable():
        return text
    return "".join(_escaped(one) if unicodedata.category(one) in _HIDDEN else one for one in text)


_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
