"""JSON as Go's encoding/json reads and writes it: what Ollama says of a bad body comes from there (wire contract 0)."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NoReturn

from service.simulated.errors import EmptyBodyError, ReplyError

_SPACE = " \t\n\r"
_LITERALS = {"t": "true", "f": "false", "n": "null"}
_CLOSERS = {"}": "{", "]": "["}


def _refuse_constant(constant: str) -> NoReturn:
    place = "in numeric literal" if constant.startswith("-") else "looking for beginning of value"
    raise ReplyError(400, f"invalid character {_quoted(constant.lstrip('-')[0])} {place}")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def decode(body: bytes) -> Any:
    """The first JSON value of a body; what follows it is ignored, as Go's Decoder does."""
    text = body.decode("utf-8", "replace")
    start = 0
    while start < len(text) and text[start] in _SPACE:
        start += 1
    if start == len(text):
        raise EmptyBodyError
    try:
        return _decoder.raw_decode(text, start)[0]
    except json.JSONDecodeError as error:
        raise ReplyError(400, _in_words_of_go(text, start, error)) from None
    except RecursionError:
        raise ReplyError(400, "exceeded max depth") from None
    except ValueError:
        raise ReplyError(400, "invalid number") from None


def encode(value: Any, *, sort_keys: bool = False) -> bytes:
    """Compact JSON with `<`, `>` and `&` escaped, as Go writes it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)
    return _escape(text).encode("utf-8", "replace")


@lru_cache(maxsize=4096)
def encode_string(text: str) -> bytes:
    """`encode` for the tokens of answers, of which there are few and which are written often."""
    return encode(text)


def number(value: float) -> float | int:
    """A float as Go prints it: 1.0 is written `1`."""
    return int(value) if float(value).is_integer() else value


def _escape(text: str) -> str:
    for character in "<>&\u2028\u2029":
        if character in text:
            text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _in_words_of_go(text: str, start: int, error: json.JSONDecodeError) -> str:
    position = error.pos
    if error.msg.startswith("Invalid control character"):
        return f"invalid character {_quoted(text[position])} in string literal"
    while position < len(text) and text[position] in _SPACE:
        position += 1
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
    in_string = False
    position = start
    while position < end:
        character = text[position]
        if character == "\\" and in_string:
            position += 1
        elif character == '"':
            in_string = not in_string
        elif not in_string and character in "{[":
            open_brackets.append(character)
        elif not in_string and character in _CLOSERS and open_brackets:
            open_brackets.pop()
        position += 1
    return open_brackets[-1] if open_brackets else "{"


def _quoted(character: str) -> str:
    if character == "'":
        return r"'\''"
    if character == '"':
        return "'\"'"
    first_byte = chr(character.encode("utf-8", "replace")[0])
    shown = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\x00": r"\x00"}.get(first_byte, first_byte)
    return f"'{shown}'"
