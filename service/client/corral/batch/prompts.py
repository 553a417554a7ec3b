"""What a line of the input asks for: read, filled up with defaults, and checked before anything is sent."""

from __future__ import annotations

import difflib
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corral.batch.lines import Kind, Line

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
"""OpenAI's routes that a batch may name, as OpenAI's own batches do."""
_TEXT = ("prompt", "model", "system")
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "prompt": ((str,), "a text"),
    "model": ((str,), "the name of a model"),
    "system": ((str,), "a text"),
    "messages": ((list,), "a list of messages"),
    "tools": ((list,), "a list of tools"),
    "options": ((dict,), "an object"),
    "format": ((str, dict), '"json" or a JSON schema'),
    "images": ((list,), "a list of pictures in base64"),
    "think": ((bool, str), "true, false or a level"),
    "keep_alive": ((int, float, str), "seconds or a duration"),
    "not_before": ((int, float, str), "a time"),
    "expires_in_seconds": ((int, float), "a number of seconds"),
    "priority": ((str, int), "high, normal or low"),
}
"""The fields of ``POST /api/v1/prompt``."""
_IDS = ("id", "custom_id")
_PRIORITIES = ("high", "normal", "low", 1, 0, -1)
_MERGED = ("model", "system", "format", "think", "images", "priority")


class LineError(Exception):
    """What is wrong with a line, in words for whoever wrote it."""


@dataclass(frozen=True)
class Defaults:
    """What the command line says for all lines; a line's own word wins."""

    model: str | None = None
    system: str | None = None
    options: Mapping[str, Any] | None = None
    format: Any = None
    think: bool | str | None = None
    images: list[str] | None = None
    priority: str | None = None
    max_tokens: int | None = None
    template: Template | None = None


class Template:
    """A prompt with places for fields: ``Summarise: {text}``. A brace itself is written twice."""

    def __init__(self, text: str) -> None:
        """Raises LineError for one that cannot be read."""
        self.text = text
        self._parts: list[tuple[str, str | None]] = []
        try:
            for before, name, spec, conversion in string.Formatter().parse(text):
                if name is not None and (spec or conversion or not name.strip()):
                    raise ValueError("write the name of a field alone between braces")
                self._parts.append((before, name))
        except ValueError as error:
            raise LineError(f"--template: {error}; a brace itself is written twice: {{{{ and }}}}") from None
        self.names = {name for _, name in self._parts if name is not None}
        if not self.names:
            raise LineError("--template: has no field, such as {text}; every prompt would be the same")

    def filled(self, fields: Mapping[str, Any]) -> str:
        """The prompt for these. Raises LineError for a field that is not there."""
        for name in self.names:
            if name not in fields:
                known = ", ".join(map(str, fields)) or "none"
                raise LineError(f"the template's field {name!r} is not there; there are: {known}")
        return "".join(before + ("" if name is None else _as_text(name, fields[name])) for before, name in self._parts)


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise LineError(f"the template's field {name!r} is no text or number")


def read_line(index: int, number: int, value: Any, source: bytes, defaults: Defaults) -> Line:
    """A line as it is to be asked. Raises LineError."""
    if isinstance(value, str):
        value = {"prompt": value}
    if not isinstance(value, dict):
        raise LineError("is neither a text nor an object")
    if "url" in value and "body" in value:
        return _of_openai(index, number, value, source, defaults)
    return _prompt(index, number, value, source, defaults)


def read_row(index: int, number: int, columns: Mapping[str, str], source: bytes, defaults: Defaults) -> Line:
    """A row of a table. Raises LineError."""
    prompt = columns["prompt"] if defaults.template is None else defaults.template.filled(columns)
    own_id = next((columns[name] for name in _IDS if columns.get(name)), None)
    body = _checked(_filled({"prompt": prompt}, defaults))
    return Line(index, number, own_id, Kind.PROMPT, body, source, columns=columns)


def _prompt(index: int, number: int, value: dict[str, Any], source: bytes, defaults: Defaults) -> Line:
    own_id = next((value[name] for name in _IDS if name in value), None)
    if isinstance(own_id, dict | list):
        raise LineError("id: give a text or a number")
    fields = {name: found for name, found in value.items() if name not in _IDS and found is not None}
    template = defaults.template
    if template is not None:
        if "messages" in fields:
            raise LineError("messages: a template makes a prompt; leave one of them out")
        prompt = template.filled(value)
        # What else the line has is data for the template.
        fields = {name: found for name, found in fields.items() if name in _KINDS and name not in template.names}
        fields["prompt"] = prompt
    return Line(index, number, own_id, Kind.PROMPT, _checked(_filled(fields, defaults)), source)


def _filled(fields: dict[str, Any], defaults: Defaults) -> dict[str, Any]:
    """The fields, with the defaults below them."""
    body = {name: value for name in _MERGED if (value := getattr(defaults, name)) is not None}
    options = dict(defaults.options or {})
    if defaults.max_tokens is not None:
        options["num_predict"] = defaults.max_tokens
    if "messages" in fields:
        # There they belong to a message.
        body.pop("images", None)
    body |= fields
    own = fields.get("options")
    if options and (own is None or isinstance(own, dict)):
        body["options"] = {**options, **(own or {})}
    return body


def _checked(body: dict[str, Any]) -> dict[str, Any]:
    for name, value in body.items():
        if name not in _KINDS:
            close = difflib.get_close_matches(str(name).lower(), _KINDS, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join((*_IDS, *_KINDS))}"
            raise LineError(f"{name}: there is no such field; {remedy}")
        kinds, words = _KINDS[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise LineError(f"{name}: must be {words}")
    if ("prompt" in body) == ("messages" in body):
        raise LineError(
            "needs a prompt, or messages" if "prompt" not in body else "has a prompt and messages: give one"
        )
    if not body.get("prompt", "x").strip():
        raise LineError("prompt: is empty")
    _check_messages(body.get("messages"))
    priority = body.get("priority")
    if priority is not None and (priority.lower() if isinstance(priority, str) else priority) not in _PRIORITIES:
        raise LineError("priority: must be high, normal or low")
    return body


def _check_messages(messages: Any) -> None:
    if messages is None:
        return
    if not messages:
        raise LineError("messages: is empty")
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or not message["role"]:
            raise LineError(f"messages[{place}]: must be an object with a role and content")
        if not isinstance(message.get("content"), str | None):
            raise LineError(f"messages[{place}].content: must be a text")


def _of_openai(index: int, number: int, value: dict[str, Any], source: bytes, defaults: Defaults) -> Line:
    if defaults.template is not None:
        raise LineError("a line of OpenAI's batch format needs no template")
    own_id, url, body = value.get("custom_id"), value["url"], value["body"]
    if not isinstance(own_id, str) or not own_id:
        raise LineError("custom_id: must be a text, by which the line is known again")
    if url not in URLS:
        raise LineError(f"url: must be one of {', '.join(URLS)}")
    if str(value.get("method", "POST")).upper() != "POST":
        raise LineError("method: must be POST")
    if not isinstance(body, dict):
        raise LineError("body: must be an object")
    if body.get("stream"):
        raise LineError("body.stream: a batch takes whole replies; leave it out")
    filled = dict(body)
    if not filled.get("model") and defaults.model is not None:
        filled["model"] = defaults.model
    if not isinstance(filled.get("model"), str) or not filled["model"]:
        raise LineError("body.model: is missing; name one there, or with -m")
    return Line(index, number, own_id, Kind.OPENAI, filled, source, url=url)
