"""The words of an error, in whichever of Ollama's shapes it comes (wire contract 3.1)."""

from __future__ import annotations

from pydantic_core import from_json, to_json

_DEEPEST = 4
"""An error that holds an error that holds …: Ollama nests twice (a runner's document as a string)."""


def text_of_error(error: object, depth: int = 0) -> str:
    """The message in an ``error`` value: text, an object with a message, or a runner's JSON document as text."""
    if depth < _DEEPEST:
        if isinstance(error, str) and error.startswith("{"):
            try:
                document = from_json(error)
            except ValueError:
                return error
            return text_of_error(document, depth + 1) or error
        if isinstance(error, dict):
            for key in ("error", "message"):
                if error.get(key):
                    return text_of_error(error[key], depth + 1)
    return error if isinstance(error, str) else to_json(error).decode()
