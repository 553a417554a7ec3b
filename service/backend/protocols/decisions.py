"""``/v1/systemone`` (wire contract 1.7)."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic_core import to_json

from service.backend.protocols.reading import Ending, count, mapping
from service.backend.protocols.whole import WholeReader
from service.job import TEXT, Counts, Segment


def _read_decision(reply: dict[str, Any]) -> Ending:
    answers = reply.get("answers")
    if not isinstance(answers, dict):
        return Ending(is_complete=False)
    usage = mapping(reply.get("usage"))
    counts = Counts(prompt_tokens=count(usage.get("input_tokens")), completion_tokens=count(usage.get("output_tokens")))
    return Ending(is_complete=True, counts=counts, segments=(Segment(TEXT, to_json(answers).decode()),))


whole_decision = partial(WholeReader, _read_decision)
