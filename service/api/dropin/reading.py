"""Bodies as Ollama's decoder reads them: the first JSON value only, field names without regard to case (wire contract
0).
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from pydantic_core import from_json

from service.errors import InvalidRequestError

_MOST_DIGITS = 4_000
_LONGEST_NAME = 400


def first_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that Ollama would read, with its names in lower case; as in Go, the last of equal names counts.
    None when Ollama would find none, and refuse the body in its own words.

    Raises InvalidRequestError for one that is nested too deep for us to see what is in it.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        value = _slowly(body)
    if not isinstance(value, dict):
        return None
    return value if all(map(str.islower, value)) else {name.lower(): one for name, one in value.items()}


def is_name(text: str) -> bool:
    """Whether this may be a model's name. Ollama refuses all others, and the database could not keep some of them."""
    if not text or len(text) > _LONGEST_NAME or "\0" in text:
        return False
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _slowly(body: bytes) -> Any:
    """Read what pydantic refuses and Go accepts: text after the value is ignored, broken characters are replaced."""
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    try:
        value, _ = _decoder.raw_decode(text)
    except RecursionError:
        raise InvalidRequestError("exceeded max depth") from None
    except ValueError:
        return None
    return value


def _integer(digits: str) -> int | float:
    # Python refuses to read longer integers.
    return int(digits) if len(digits) < _MOST_DIGITS else float("inf")


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_decoder = json.JSONDecoder(parse_int=_integer, parse_constant=_refused)
