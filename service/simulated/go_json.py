"""JSON as Go's encoding/json reads and writes it: what Ollama says of a bad body comes from there (wire contract 0)."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from service.errors import InvalidRequestError
from service.go_json import refuse_constant, syntax_error
from service.simulated.errors import EmptyBodyError, ReplyError

_SPACE = " \t\n\r"

_decoder = json.JSONDecoder(parse_constant=refuse_constant)


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
        raise ReplyError(400, syntax_error(text, start, error)) from None
    except InvalidRequestError as error:
        raise ReplyError(400, str(error)) from None
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
