"""Fields that requests of several dialects share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from service.job import Priority, Status

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)
"""For bodies: no value is converted to another type, and an unknown field is refused."""

Duration = Annotated[str, Field(json_schema_extra={"pattern": r"^-?(\d+(\.\d+)?(ns|us|ms|s|m|h))+$"})] | float
"""As the document describes a duration: seconds, or words such as ``5m`` and ``1h30m``."""
BASE64 = {
    "contentEncoding": "base64",
    "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
}
"""What the document says of a string that holds bytes."""

_PRIORITIES: dict[Any, int] = {None: 0, **{each.word: int(each) for each in Priority}}


def _read_priority(value: Any) -> int:
    if type(value) is int and value in (1, 0, -1):
        return value
    if value is not None and not isinstance(value, str):
        raise ValueError("must be one of high, normal, low")
    priority = _PRIORITIES.get(value.lower() if value else None)
    if priority is None:
        raise ValueError("must be one of high, normal, low")
    return priority


PriorityWords = Literal["high", "normal", "low", 1, 0, -1]
"""As the document describes a priority; capitals are read, too."""
PriorityField = Annotated[int, BeforeValidator(_read_priority, json_schema_input_type=PriorityWords | None)]
"""``high``, ``normal`` or ``low``; 1, 0 or -1 mean the same."""


_LONGEST_MODEL = 400


def _read_model(value: Any) -> Any:
    # A longer one is refused for that.
    if isinstance(value, str) and any(character.isspace() for character in value[:_LONGEST_MODEL]):
        raise ValueError("must be the name of a model, without spaces")
    return value


_ModelName = Annotated[str, Field(max_length=_LONGEST_MODEL, json_schema_extra={"pattern": r"^\S*$"})]
ModelField = Annotated[_ModelName | None, BeforeValidator(_read_model, json_schema_input_type=_ModelName | None)]
"""A model as Ollama names it; none, or "": the configured default."""

_LAST_MOMENT = 253_402_300_800
"""The end of the year 9999, in seconds since the epoch: beyond it no time can be written down."""


def moment_ms(seconds: float, refusal: str) -> int:
    """A moment given in seconds since the epoch, in milliseconds. Raises ValueError with ``refusal`` before the epoch,
    after the year 9999, and for NaN.
    """
    if not 0 <= seconds < _LAST_MOMENT:
        raise ValueError(refusal)
    return int(seconds * 1000)


def one_of(words: Iterable[str]) -> Any:
    """Marks a string that is always one of these."""
    return Field(json_schema_extra={"enum": [str(word) for word in words]})


Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339, in UTC."""
JobId = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
StatusWord = Annotated[str, one_of(Status)]
PriorityWord = Annotated[str, one_of(priority.word for priority in Priority)]
