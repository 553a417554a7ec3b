"""JSON in.

A value that cannot be stored or sent on is refused here, with the name of its field. As in Ollama, neither Content-Type
nor charset matters: a body is UTF-8.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable
from typing import Any

import jiter
from aiohttp import web

from service.api.http.receiving import read_body
from service.errors import InvalidRequestError
from service.go_json import Doubled, object_of
from service.json_bounds import MOST_LEVELS, UNSCANNED_BYTES, check_bounds
from service.validation import field_path

_LARGEST_INTEGER = 2**63
_MOST_DIGITS = 4_000
_PATH_STEPS_SHOWN = 5
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')

Place = tuple[Any, ...]
"""Where a value stands, as (place of its container, key or index); () for the body itself."""


async def read_json(request: web.Request) -> bytes:
    """The whole body, which holds no more than may be parsed at once; to be called once. Raises InvalidRequestError for
    one that holds more, and what :func:`read_body` does.
    """
    body = await read_body(request)
    if len(body) > UNSCANNED_BYTES:
        await check_bounds(body)
    return body


async def read_object(request: web.Request) -> dict[str, Any]:
    """The JSON object in the request's body. Raises InvalidRequestError, and what :func:`read_body` does."""
    return parse_object(await read_json(request))


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``. Raises InvalidRequestError."""
    try:
        value = jiter.from_json(data, catch_duplicate_keys=True)
    except ValueError as error:
        text = _decode(data)
        if "recursion limit" in str(error):
            # json is not asked: how deep it reads depends on Python's version.
            raise _too_deep(_deep_field(text)) from None
        # json is slower, but says what is wrong and where; and it accepts a few bodies that jiter refuses.
        value = _parse(text)
    if not isinstance(value, dict):
        raise InvalidRequestError("the body must be a JSON object, such as {…}")
    if isinstance(value, Doubled):
        raise InvalidRequestError(f"{value.name}: occurs twice; send it once", value.name)
    _check_object(value, (), 1)
    return value


def check_text(text: str, field: str) -> None:
    """Refuse text that no database and no Ollama takes: with NUL, or a lone surrogate. Raises InvalidRequestError."""
    if "\0" in text:
        raise InvalidRequestError(f"{field}: must not hold the character NUL", field)
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidRequestError(f"{field}: holds half of a character (a lone surrogate)", field)


def _decode(data: bytes) -> str:
    if not data:
        raise InvalidRequestError("the body is empty; it must be a JSON object")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"the body is not UTF-8 (byte {error.start})") from None


def _parse(text: str, parse_int: Callable[[str], int] | None = None) -> Any:
    try:
        return json.loads(text, parse_int=parse_int, object_pairs_hook=object_of)
    except RecursionError:
        raise _too_deep(_deep_field(text)) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequestError(f"the body is not JSON: {error.msg} ({place})") from None
    except ValueError:
        # Python refuses integers of more than 4,300 digits. Read with a bound, they are found by the check, which names
        # their field.
        return _parse(text, _bounded_integer)


def _bounded_integer(digits: str) -> int:
    return int(digits) if len(digits) < _MOST_DIGITS else _LARGEST_INTEGER


def _check_object(value: dict[str, Any], place: Place, level: int) -> None:
    for key, inner in value.items():
        if "\0" in key or not key.isascii():
            check_text(key, _path((place, key)))
        _check(inner, (place, key), level)


def _check(value: Any, place: Place, level: int) -> None:
    kind = type(value)
    if kind is str:
        # Most of a large body is base64, for which isascii() is quick.
        if "\0" in value or not value.isascii():
            _check_text(value, place)
    elif kind is dict or kind is list or kind is Doubled:
        if level >= MOST_LEVELS:
            raise _too_deep(_path(place))
        if kind is list:
            for index, inner in enumerate(value):
                _check(inner, (place, index), level + 1)
        else:
            _check_object(value, place, level + 1)
    elif kind is int:
        if not -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
            field = _path(place)
            raise InvalidRequestError(f"{field}: must be a whole number of at most 63 bits", field)
    elif kind is float and not math.isfinite(value):
        field = _path(place)
        raise InvalidRequestError(f"{field}: must be a finite number; NaN and Infinity are not JSON", field)


def _check_text(text: str, place: Place) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        check_text(text, _path(place))
    if "\0" in text:
        check_text(text, _path(place))


def _path(place: Place) -> str:
    steps: list[str | int] = []
    while place:
        place, step = place
        # The key may hold a lone surrogate itself.
        steps.append(step.encode("utf-8", "replace").decode() if isinstance(step, str) else step)
    steps.reverse()
    return field_path(tuple(steps[:_PATH_STEPS_SHOWN])) + ("…" if len(steps) > _PATH_STEPS_SHOWN else "")


def _too_deep(field: str) -> InvalidRequestError:
    where = f"{field}: " if field else "the body "
    return InvalidRequestError(f"{where}is nested more than {MOST_LEVELS} levels deep", field)


def _deep_field(text: str) -> str:
    """The field of the outermost object whose value goes too deep."""
    level, last = 0, ""
    for token in _TOKENS.finditer(text):
        match token.group():
            case "[" | "{":
                level += 1
                if level > MOST_LEVELS:
                    break
            case "]" | "}":
                level -= 1
            case string if level == 1:
                last = string[1:-1]
    return last[: _PATH_STEPS_SHOWN * 10]
