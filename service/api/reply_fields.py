"""Values that replies of several dialects share, as the API's document describes them; to Python they are strings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from service.job import Priority, Status


def one_of(words: Iterable[str]) -> Any:
    """Marks a string that is always one of these."""
    return Field(json_schema_extra={"enum": [str(word) for word in words]})


Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339, in UTC."""
JobId = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
StatusWord = Annotated[str, one_of(Status)]
PriorityWord = Annotated[str, one_of(priority.word for priority in Priority)]
