"""Checks what callers send against pydantic models, and refuses it in sentences that a person can act on."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from service.errors import InvalidRequestError

_Model = TypeVar("_Model", bound=BaseModel)

_SHOWN_CHARACTERS = 60
_MOST_FIELDS = 100
"""More than any model has. pydantic describes each that is wrong, which takes its time; so callers' lists fail at their
first wrong item (``fail_fast``).
"""

_REASONS: Mapping[str, str] = {
    "missing": "is required",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of at most 64 bits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters long",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be one of {expected}",
    "value_error": "{error}",
}


def validated(model: type[_Model], values: Mapping[str, Any]) -> _Model:
    """``values`` as ``model``. Raises InvalidRequestError with one sentence about the first thing that is wrong."""
    if len(values) > _MOST_FIELDS:
        raise InvalidRequestError(f"there are more than {_MOST_FIELDS} fields")
    try:
        # model_validate does the same, but spends a third of its time on options that are not used here.
        checked: _Model = model.__pydantic_validator__.validate_python(values)
    except ValidationError as refusal:
        raise _explained(refusal, model) from None
    return checked


def field_path(place: tuple[str | int, ...]) -> str:
    """A place in a body as people write it: ``messages[0].content``."""
    path = ""
    for step in (step if isinstance(step, int) else step[:_SHOWN_CHARACTERS] for step in place):
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def _explained(refusal: ValidationError, model: type[BaseModel]) -> InvalidRequestError:
    errors = refusal.errors(include_url=False)
    # A mistyped name is reported first: that the right one is missing is only its consequence.
    error = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    path = field_path(error["loc"])
    if error["type"] == "extra_forbidden":
        return InvalidRequestError(f"{path}: there is no such field{_suggestion(error, model)}", path)
    reason = _REASONS.get(error["type"], "")
    reason = reason.format_map(error.get("ctx", {})) if reason else error["msg"].replace("Input should", "must")
    return InvalidRequestError(f"{path}: {reason}{_got(error)}", path)


def _suggestion(error: ErrorDetails, model: type[BaseModel]) -> str:
    if len(error["loc"]) > 1:
        return ""
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(error["loc"][-1])[:_SHOWN_CHARACTERS].lower(), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def _got(error: ErrorDetails) -> str:
    if error["type"] in ("missing", "too_short", "string_too_short", "string_too_long"):
        return ""
    match error["input"]:
        case str() as text:
            return f" (got {text[:_SHOWN_CHARACTERS]!r}{'…' if len(text) > _SHOWN_CHARACTERS else ''})"
        case bool() | int() | float() | None as value:
            return f" (got {json.dumps(value)})"
        case list():
            return " (got a list)"
        case _:
            return " (got an object)"
