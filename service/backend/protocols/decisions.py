"""``/v1/systemone`` (wire contract 1.7)."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic_core import to_json

from service.backend.protocols.reading import Ending, counts_in
from service.backend.protocols.whole import WholeReader
from service.job import TEXT, Segment


def _read_decision(reply: dict[str, Any]) -> Ending:
    answers = reply.get("answers")
    if not isinstance(answers, dict):
        return Ending(is_complete=False)
    segment = Segment(TEXT, to_json(answers).decode())
    return Ending(is_complete=True, counts=counts_in(reply), segments=(segment,))


whole_decision = partial(WholeReader, _read_decision)
