"""Bodies as Ollama's decoder reads them: the first JSON value only, field names without regard to case (wire contract
0).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

_decoder = json.JSONDecoder()


def first_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that Ollama would see; None when it would see none, and refuse it in its own words."""
    try:
        value = from_json(body)
    except ValueError:
        value = _slowly(body)
    return value if isinstance(value, dict) else None


def member(fields: Mapping[str, Any], name: str) -> Any:
    """A field's value, None when it is absent. As in Go, the last one that fits counts, in whatever case."""
    if name in fields and len(fields) < 2:
        return fields[name]
    found = fields.get(name)
    for key, value in fields.items():
        if (len(key) == len(name) and key != name and key.lower() == name) or key == name:
            found = value
    return found


def _slowly(body: bytes) -> Any:
    """What follows the first value is nobody's business, and half a character is a question mark to Go."""
    try:
        value, _ = _decoder.raw_decode(body.decode("utf-8", "replace").lstrip())
    except (ValueError, RecursionError):
        return None
    return value
