"""JSON as Go's encoding/json reads it, since Ollama reads every body with that (wire contract 0).

Two readings of one body would be a way past every rule, so what Ollama is sent is judged as Go reads it: names without
regard to case (foldName in Go's encoding/json/fold.go), half characters and bytes that are no UTF-8 as U+FFFD.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

import jiter

from service.errors import InvalidRequestError

REPLACEMENT = "\ufffd"

_SPACE = " \t\n\r"
_LITERALS = {"t": "true", "f": "false", "n": "null"}
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"[ \t\n\r]*")
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[^][{}"]+', re.DOTALL)
"""All but the brackets that are outside of strings."""
_MOST_SLOWLY_BYTES = 2 * 1024 * 1024
_MOST_DIGITS = 640
"""Python refuses to read integers that are much longer."""


class Doubled(dict[str, Any]):
    """An object in which a name occurs more than once; each has the last of its values."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counted = Counter(name for name, _ in pairs)
        self.name = next(name for name, times in counted.items() if times > 1)
        """The first such name."""


def text_of(body: bytes) -> str:
    """The body as Go reads it."""
    return body.decode("utf-8", "replace")


def parse(body: bytes) -> Any:
    """The JSON value that ``body`` is. An object in which a name occurs twice is a :class:`Doubled`.

    Raises InvalidRequestError, in the words of Go, for what is not exactly one JSON value; of more than 2 MiB in words
    of ours, also for half a character and for a name that occurs twice anywhere.
    """
    try:
        return _quickly(body)
    except ValueError as error:
        # Python's own parser takes all that Go takes, and says what is wrong in words that can be made Go's. But it is
        # slower, and nobody has a turn meanwhile.
        if len(body) <= _MOST_SLOWLY_BYTES:
            return _slowly(text_of(body))
        if "unicode" not in str(error):
            raise InvalidRequestError(f"invalid JSON: {error}") from None
    try:
        return _quickly(text_of(body).encode())
    except ValueError as error:
        raise InvalidRequestError(f"invalid JSON: {error}") from None


def fields_of(body: bytes) -> dict[str, Any]:
    """The members of the object that ``body`` is, by their names as Go folds them; of equal names the last counts."""
    return {fold(name): value for name, value in dict(parse(body)).items()}


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these members, for Python's own parser (``object_pairs_hook``)."""
    value = dict(pairs)
    return value if len(value) == len(pairs) else Doubled(pairs)


def fold(name: str) -> str:
    """A name in the one form of all names that Go takes for the same field."""
    if name.isascii():
        return name.lower()
    return "".join(map(_fold_character, _LONE_SURROGATES.sub(REPLACEMENT, name)))


def syntax_error(text: str, start: int, error: json.JSONDecodeError) -> str:
    """What Go says of a text, whose value begins at ``start``, in which Python has found this error."""
    position = error.pos
    if error.msg.startswith("Invalid control character"):
        return f"invalid character {_quoted(text[position])} in string literal"
    spaces = _SPACES.match(text, position)
    position = spaces.end() if spaces is not None else position
    if position >= len(text) or error.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    found = _quoted(text[position])
    if error.msg.startswith(("Expecting property name", "Illegal trailing comma before end of object")):
        return f"invalid character {found} looking for beginning of object key string"
    if error.msg.startswith("Expecting ':'"):
        return f"invalid character {found} after object key"
    if error.msg.startswith("Expecting ','"):
        after = "array element" if _innermost(text, start, position) == "[" else "object key:value pair"
        return f"invalid character {found} after {after}"
    if error.msg.startswith("Invalid \\"):
        return f"invalid character {_quoted(text[min(position + 1, len(text) - 1)])} in string escape code"
    return _about_literal(text, position) or f"invalid character {found} looking for beginning of value"


def refuse_constant(constant: str) -> NoReturn:
    """Raise InvalidRequestError for NaN and the infinities, which Python reads and Go does not."""
    place = "in numeric literal" if constant.startswith("-") else "looking for beginning of value"
    raise InvalidRequestError(f"invalid character {_quoted(constant.lstrip('-')[0])} {place}")


def _quickly(body: bytes) -> Any:
    return jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True)


def _slowly(text: str) -> Any:
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise InvalidRequestError(syntax_error(text, start, error)) from None
    except RecursionError:
        raise InvalidRequestError("exceeded max depth") from None
    except ValueError:
        # An integer of too many digits for Python.
        value, end = _decoder_of_long_integers.raw_decode(text, start)
    rest = text[end:].lstrip(_SPACE)
    if rest:
        raise InvalidRequestError(f"invalid character {_quoted(rest[0])} after top-level value")
    return value


def _bounded_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float("-inf" if digits.startswith("-") else "inf")


_decoder = json.JSONDecoder(object_pairs_hook=object_of, parse_constant=refuse_constant)
_decoder_of_long_integers = json.JSONDecoder(
    object_pairs_hook=object_of, parse_constant=refuse_constant, parse_int=_bounded_integer
)


def _fold_character(character: str) -> str:
    for folded in (character.casefold(), character.lower()):
        # Where one character would become several, Go leaves it as it is.
        if len(folded) == 1:
            return folded
    return character


def _about_literal(text: str, position: int) -> str | None:
    """What is wrong with something that begins as true, false or null do."""
    literal = _LITERALS.get(text[position])
    if literal is None:
        return None
    for offset, wanted in enumerate(literal):
        if position + offset >= len(text):
            return "unexpected EOF"
        if text[position + offset] != wanted:
            return f"invalid character {_quoted(text[position + offset])} in literal {literal} (expecting '{wanted}')"
    return None


def _innermost(text: str, start: int, end: int) -> str:
    """The bracket that is open at `end`: Go's message depends on whether it is `{` or `[`, Python's does not."""
    open_brackets: list[str] = []
    for bracket in _BRACKETS.sub("", text[start:end]):
        if bracket in "{[":
            open_brackets.append(bracket)
        elif open_brackets:
            open_brackets.pop()
    return open_brackets[-1] if open_brackets else "{"


def _quoted(character: str) -> str:
    if character == "'":
        return r"'\''"
    if character == '"':
        return "'\"'"
    first_byte = chr(character.encode("utf-8", "replace")[0])
    shown = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\x00": r"\x00"}.get(first_byte, first_byte)
    return f"'{shown}'"
