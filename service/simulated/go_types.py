"""Fields as Go decodes them: names in any case, null is nothing, a wrong type is a message (wire contract 0)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

from service.go_json import fold
from service.simulated import go_json
from service.simulated.errors import ReplyError

# A kind checks one decoded JSON value; `path` is `Struct.field`, as Go's message names it.
Kind = Callable[[Any, str], Any]

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]*\.?[0-9]*)([^0-9.]*)")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]")
FOREVER = float("inf")


def json_name(value: Any) -> str:
    """The JSON type of a value as Go's messages call it."""
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case int() | float():
            return "number"
        case list():
            return "array"
        case _:
            return "object"


def _mismatch(value: Any, path: str, wanted: str) -> ReplyError:
    return ReplyError(400, f"json: cannot unmarshal {json_name(value)} into Go struct field {path} of type {wanted}")


def string(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _mismatch(value, path, "string")
    return value


def boolean(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise _mismatch(value, path, "bool")
    return value


def integer(value: Any, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _mismatch(value, path, "int")
    if isinstance(value, float) or abs(value) >= 2**63:
        shown = go_json.encode(value).decode()
        raise ReplyError(400, f"json: cannot unmarshal number {shown} into Go struct field {path} of type int")
    return value


def real(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _mismatch(value, path, "float64")
    return value


def anything(value: Any, path: str) -> Any:
    return value


def mapping(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _mismatch(value, path, "map[string]interface {}")
    return value


def string_mapping(value: Any, path: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _mismatch(value, path, "map[string]string")
    return {key: "" if item is None else string(item, path) for key, item in value.items()}


def list_of(kind: Kind, go_name: str) -> Kind:
    def check(value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise _mismatch(value, path, f"[]{go_name}")
        return [kind(item, path) for item in value]

    return check


def image(value: Any, path: str) -> str:
    """Base64 as Go's standard encoding takes it; an image itself is never looked at."""
    text = string(value, path)
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        stray = _NOT_BASE64.search(text)
        place = stray.start() if stray else len(text)
        raise ReplyError(400, f"illegal base64 data at input byte {place}") from None
    return text


def duration(value: Any, path: str) -> float:
    """`keep_alive`, in seconds: a number of them, or a Go duration; negative means for ever."""
    match value:
        case bool():
            raise ReplyError(400, "Unsupported type: 'bool'")
        case int() | float():
            return FOREVER if value < 0 else float(value)
        case str():
            seconds = _parse_duration(value)
            return FOREVER if seconds < 0 else seconds
        case list():
            raise ReplyError(400, "Unsupported type: '[]interface {}'")
        case _:
            raise ReplyError(400, "Unsupported type: 'map[string]interface {}'")


def _parse_duration(text: str) -> float:
    shown = go_json.encode(text).decode()
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0.0
    seconds = 0.0
    if not rest:
        raise ReplyError(400, f"time: invalid duration {shown}")
    while rest:
        found = _DURATION.match(rest)
        amount, unit = found.groups() if found else ("", "")
        if amount in ("", "."):
            raise ReplyError(400, f"time: invalid duration {shown}")
        if not unit:
            raise ReplyError(400, f"time: missing unit in duration {shown}")
        if unit not in _UNITS:
            raise ReplyError(400, f"time: unknown unit {go_json.encode(unit).decode()} in duration {shown}")
        seconds += float(amount) * _UNITS[unit]
        rest = rest[len(amount) + len(unit) :]
    return -seconds if text.startswith("-") else seconds


def think(value: Any, path: str) -> bool | str:
    levels = '"high", "medium", "low", "max", true, or false'
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ReplyError(400, f"think must be a boolean or string ({levels})")
    if value not in ("high", "medium", "low", "max"):
        raise ReplyError(400, f"invalid think value: {go_json.encode(value).decode()} (must be {levels})")
    return value


class Struct:
    """A Go struct: the kinds of its fields by their JSON names. Fields that it does not have are ignored."""

    def __init__(self, name: str, fields: Mapping[str, Kind], *, has_own_decoder: bool = False) -> None:
        self.name = name
        self._fields = dict(fields)
        # A type with an UnmarshalJSON of its own begins its paths anew, in the name of its alias.
        self._has_own_decoder = has_own_decoder

    def decode(self, body: bytes) -> dict[str, Any]:
        """The fields that a body sets, by their proper names; raises ReplyError in Go's words."""
        value = go_json.decode(body)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise ReplyError(400, f"json: cannot unmarshal {json_name(value)} into Go value of type api.{self.name}")
        return self._fill(value, self.name)

    def __call__(self, value: Any, path: str) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise _mismatch(value, path, f"api.{self.name}")
        return self._fill(value, "Alias" if self._has_own_decoder else path)

    def _fill(self, value: dict[str, Any], path: str) -> dict[str, Any]:
        filled: dict[str, Any] = {}
        for key, item in value.items():
            name = key if key in self._fields else fold(key)
            kind = self._fields.get(name)
            if kind is not None and item is not None:
                filled[name] = kind(item, f"{path}.{name}")
        return filled
