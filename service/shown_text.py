"""Text of others as it is shown on a terminal and in the log: nothing in it moves the cursor, or begins a line."""

from __future__ import annotations

import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control characters of both kinds, what changes the direction of writing or has no width, halves of characters, and
separators of lines.
"""


def shown(text: str) -> str:
    """The text with each character that a terminal or a reader of lines would obey as an escape, such as ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(_escaped(one) if unicodedata.category(one) in _HIDDEN else one for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
