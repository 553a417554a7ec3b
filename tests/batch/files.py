"""Inputs of batches, and what their outputs say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from corral.batch.inputs import Checked, opened_input
from corral.batch.lines import Line
from corral.batch.prompts import Defaults

NOTHING = Defaults()


def checked(path: Path, defaults: Defaults = NOTHING, *, form: str | None = None, limit: int | None = None) -> Checked:
    """What is found in an input."""
    with opened_input(str(path), input_format=form, defaults=defaults, limit=limit) as source:
        return source.check()


def lines_of(
    path: Path, defaults: Defaults = NOTHING, *, form: str | None = None, limit: int | None = None
) -> list[Line]:
    """Its lines."""
    with opened_input(str(path), input_format=form, defaults=defaults, limit=limit) as source:
        return list(source.lines())


def written(path: Path, *lines: Any) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def objects(path: Path) -> list[Any]:
    """The JSON of each line."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def prompts(number: int) -> Iterable[dict[str, Any]]:
    return ({"id": f"line {place}", "prompt": f"prompt {place}"} for place in range(number))


def openai_line(own_id: str, **body: Any) -> dict[str, Any]:
    """A line of OpenAI's batch format."""
    asked = {"model": "llama3.2", "messages": [{"role": "user", "content": own_id}], **body}
    return {"custom_id": own_id, "method": "POST", "url": "/v1/chat/completions", "body": asked}
