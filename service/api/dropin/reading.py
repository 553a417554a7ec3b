"""What a body asks for, as Ollama's decoder would read it; and the bodies that two readers could take for two things,
which are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from math import isinf
from typing import Any

from service import go_json
from service.config import LONGEST_DURATION
from service.errors import InvalidRequestError
from service.json_bounds import UNSCANNED_BYTES

_LONGEST_NAME = 600
"""Of a model: Ollama's longest has a host of 350 characters and three parts of 80 (wire contract 0)."""
_LARGEST = 2**63
_NUMBERS = frozenset(
    {
        "best_of",
        "dimensions",
        "frequency_penalty",
        "height",
        "keep_alive",
        "logprobs",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "n",
        "num_ctx",
        "num_predict",
        "presence_penalty",
        "seed",
        "steps",
        "temperature",
        "top_k",
        "top_logprobs",
        "top_p",
        "width",
    }
)
"""The fields of a body that are numbers, on whichever route."""
_HOLDERS = ("options", "thinking")
"""The fields that hold further numbers."""
_CHECKED_AT_ONCE = 1_000
"""Messages."""
_TURNS = ("messages", "input")
"""The fields that may hold the turns of a chat."""
_USUAL_NAMES = frozenset(
    {"role", "content", "type", "name", "thinking", "images", "tool_calls", "tool_name", "tool_call_id"}
)
"""Names of a turn as Go folds them: no two of these are the same."""


def read_call(body: bytes, nothing: str = "missing request body") -> dict[str, Any]:
    """The fields of a call, with their names as Go folds them; none where the body is a JSON value but no object.
    ``nothing`` is what Ollama says of an empty body on this route.

    Raises InvalidRequestError for what is not one JSON value, in the words of Go; for names that are the same to Ollama
    and occur twice; and for numbers that it cannot hold.
    """
    if not body.strip(b" \t\r\n"):
        raise InvalidRequestError(nothing)
    fields = _object_in(body)
    for _ in _checks(fields):
        pass
    return fields


async def read_large_call(body: bytes, nothing: str) -> dict[str, Any]:
    """The same of a body with perhaps a hundred thousand messages; others have their turn in between."""
    if len(body) <= UNSCANNED_BYTES:
        return read_call(body, nothing)
    fields = _object_in(body)
    await refuse_doubles(fields)
    return fields


async def refuse_doubles(fields: Mapping[str, Any]) -> None:
    """Raise InvalidRequestError for a body that Ollama could read in another way than we do: where names of one field
    occur twice among the options or in a message, or a number is larger than 63 bits hold.
    """
    for _ in _checks(fields):
        await asyncio.sleep(0)


def _checks(fields: Mapping[str, Any]) -> Iterator[None]:
    """Check the fields; it stops now and then, so that others may have their turn."""
    for name in fields.keys() & _NUMBERS:
        _check_number(fields[name], name)
    keep_alive = fields.get("keep_alive")
    if isinstance(keep_alive, str) and len(keep_alive) > LONGEST_DURATION:
        raise InvalidRequestError(f"keep_alive: must be at most {LONGEST_DURATION} characters long", "keep_alive")
    for name in _HOLDERS:
        if isinstance(held := fields.get(name), dict):
            check_names(held, name)
            for option, value in held.items():
                _check_number(value, name, option)
    for name in _TURNS:
        if isinstance(turns := fields.get(name), list):
            for index, turn in enumerate(turns):
                if index % _CHECKED_AT_ONCE == _CHECKED_AT_ONCE - 1:
                    yield
                # Most have no other names, and there may be very many.
                is_usual = type(turn) is dict and turn.keys() <= _USUAL_NAMES
                if not is_usual and isinstance(turn, dict):
                    check_names(turn, f"{name}[{index}]")
    context = fields.get("context")
    # It may have more than a hundred thousand numbers.
    if isinstance(context, list) and not all(-_LARGEST <= one < _LARGEST for one in context if type(one) is int):
        raise _is_too_large("context")


def is_name(text: str) -> bool:
    """Whether a model of Ollama's may have this name; it refuses all others."""
    return 0 < len(text) <= _LONGEST_NAME and text.isascii() and "\0" not in text


def _object_in(body: bytes) -> dict[str, Any]:
    value = go_json.parse(body)
    if not isinstance(value, dict):
        return {}
    if isinstance(value, go_json.Doubled):
        raise _is_twice("", value.name, value.name)
    return value if _is_plain(value) else _folded(value)


def _is_plain(names: Iterable[str]) -> bool:
    """Whether all names are in lower case and ASCII, so that they are already as Go folds them."""
    together = "".join(names)
    return together.isascii() and together == together.lower()


def _folded(value: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    as_written: dict[str, str] = {}
    for name, one in value.items():
        folded = go_json.fold(name)
        if folded in fields:
            raise _is_twice("", as_written[folded], name)
        fields[folded], as_written[folded] = one, name
    return fields


def check_names(value: Mapping[str, Any], place: str) -> None:
    """Raise InvalidRequestError for an object in which two names are the same to Ollama; ``place`` is where it is."""
    if isinstance(value, go_json.Doubled):
        raise _is_twice(place, value.name, value.name)
    if _is_plain(value):
        return
    as_written: dict[str, str] = {}
    for name in value:
        first = as_written.setdefault(go_json.fold(name), name)
        if first is not name:
            raise _is_twice(place, first, name)


def _is_twice(place: str, first: str, second: str) -> InvalidRequestError:
    where = f"{place}: " if place else ""
    first, second = (name.encode("utf-8", "replace").decode()[:100] for name in (first, second))
    what = f"{first!r} occurs twice" if first == second else f"{first!r} and {second!r} are the same name to Ollama"
    return InvalidRequestError(f"{where}{what}; send it once", f"{place}.{second}" if place else second)


def _check_number(value: Any, *path: str) -> None:
    kind = type(value)
    # An integer that is too long for Python is read as an infinity.
    if (kind is int and not -_LARGEST <= value < _LARGEST) or (kind is float and isinf(value)):
        raise _is_too_large(".".join(path))


def _is_too_large(path: str) -> InvalidRequestError:
    field = path.encode("utf-8", "replace").decode()[:100]
    return InvalidRequestError(f"{field}: must be a number of at most 63 bits", field)
