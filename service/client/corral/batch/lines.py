"""A line of a batch, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """How a line is asked."""

    PROMPT = "prompt"
    """As ``POST /api/v1/prompt`` takes it."""
    OPENAI = "openai"
    """A line of OpenAI's batch format: a request to one of its routes."""


@dataclass(frozen=True)
class Line:
    """One prompt of the input. ``index`` is its place among them, from 0; ``number`` its line in the file, from 1."""

    index: int
    number: int
    id: Any
    """The input's ``id`` or ``custom_id``; None where it has none."""
    kind: Kind
    body: dict[str, Any]
    """What is sent, with the defaults of the command line where the line itself says nothing."""
    source: bytes
    """As it stands in the input, without the end of the line."""
    url: str = ""
    """OpenAI's route."""
    columns: Mapping[str, str] | None = None
    """Of a table: its cells by the names of their columns."""

    @property
    def model(self) -> str | None:
        """None: the server's default."""
        found = self.body.get("model")
        return found if isinstance(found, str) and found else None


@dataclass(frozen=True)
class Outcome:
    """What became of a line. What is not known is None."""

    status: str
    """``completed``, ``failed`` or ``cancelled``."""
    result: str | None = None
    thinking: str | None = None
    tool_calls: list[Any] | None = None
    code: str | None = None
    message: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float | None = None
    """From its beginning to its end."""
    job_id: str | None = None
    reply: str | None = None
    """Of an OpenAI line: the body of the reply, as it came."""
    reply_status: int | None = None
    request_id: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether there is an answer."""
        return self.status == "completed"

    @property
    def cause(self) -> str:
        """Why there is none, in a word."""
        return self.code or self.status
