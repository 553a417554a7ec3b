"""Bodies as Ollama's decoder reads them: the first JSON value only, field names without regard to case (wire contract
0).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from pydantic_core import from_json

from service.errors import InvalidRequestError

_MOST_DIGITS = 4_000
_LONGEST_NAME = 400


def first_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that Ollama would see; None when it would see none, and refuse it in its own words.

    Raises InvalidRequestError for one that is nested too deep for us to see what is in it.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        value = _slowly(body)
    return value if isinstance(value, dict) else None


def member(fields: Mapping[str, Any], name: str) -> Any:
    """A field's value, None when it is absent. As in Go, the last one that fits counts, in whatever case."""
    found = fields.get(name)
    for key, value in fields.items():
        if len(key) == len(name) and (key == name or key.lower() == name):
            found = value
    return found


def is_name(value: Any) -> bool:
    """Whether this may be a model's name; Ollama refuses what no job can be kept under."""
    if not isinstance(value, str) or not value or len(value) > _LONGEST_NAME or "\0" in value:
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _slowly(body: bytes) -> Any:
    """What follows the first value is nobody's business, and half a character is a question mark to Go."""
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    try:
        value, _ = _decoder.raw_decode(text)
    except RecursionError:
        raise InvalidRequestError("exceeded max depth") from None
    except ValueError:
        return None
    return value


def _integer(digits: str) -> int | float:
    # Python refuses to read longer ones.
    return int(digits) if len(digits) < _MOST_DIGITS else float("inf")


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_decoder = json.JSONDecoder(parse_int=_integer, parse_constant=_refused)
