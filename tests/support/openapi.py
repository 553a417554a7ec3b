"""The API's document in the hands of a test: does a reply look as it says?"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
from aiohttp import web

METHODS = ("get", "head", "post", "put", "patch", "delete")
RELAYED = ("ollama", "openai", "anthropic")
"""The tags of the dialects whose replies are Ollama's, which may hold more than is known here."""
_SCHEMAS = "#/components/schemas/"


def served_routes(app: web.Application) -> set[tuple[str, str]]:
    """Method and path of every route, without those that follow from another: HEAD where there is GET, preflights, and
    the redirects from a path with a slash too many.
    """
    served = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    return {
        (method, path)
        for method, path in served
        if method != "OPTIONS"
        and not (method == "HEAD" and ("GET", path) in served)
        and not (path.endswith("/") and (method, path[:-1]) in served)
    }


class Document:
    """A document, read strictly: of our own objects every field must be in it."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self._strict = copy.deepcopy(fields["components"])
        schemas = self._strict["schemas"]
        for name in set(schemas) - set(self._relayed_names()):
            if "properties" in schemas[name]:
                schemas[name].setdefault("additionalProperties", False)

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Method, path and what is said of it."""
        for path, methods in self.fields["paths"].items():
            for method, operation in methods.items():
                assert method in METHODS
                yield method.upper(), path, operation

    def check(self, method: str, path: str, status: int, content_type: str, body: bytes) -> None:
        """Fails unless the reply is one that the document knows; of a stream, every line or event."""
        replies = self.fields["paths"][path][method.lower()]["responses"]
        reply = replies.get(str(status)) or replies.get("default")
        assert reply is not None, f"{method} {path} answered {status}: {body[:300]!r}"
        content = reply.get("content")
        if content is None:
            assert body == b"", f"{method} {path} {status} has a body: {body[:300]!r}"
            return
        media_type = content_type.partition(";")[0]
        assert media_type in content or "*/*" in content, f"{method} {path} {status} is {media_type}: {body[:300]!r}"
        for value in values_of(media_type, body):
            self.check_value(content[media_type]["schema"], value)

    def check_value(self, schema: dict[str, Any], value: Any) -> None:
        """Fails unless the value is as the schema says."""
        validator = jsonschema_rs.Draft202012Validator({**schema, "components": self._strict}, validate_formats=True)
        error = next(validator.iter_errors(value), None)
        assert error is None, f"{error}\nin {json.dumps(value)[:500]}"

    def _relayed_names(self) -> Iterator[str]:
        waiting = [operation for _, _, operation in self.operations() if set(operation["tags"]) & set(RELAYED)]
        found: set[str] = set()
        while waiting:
            for name in _references(waiting.pop()):
                if name not in found:
                    found.add(name)
                    waiting.append(self.fields["components"]["schemas"][name])
                    yield name


def values_of(media_type: str, body: bytes) -> list[Any]:
    """The JSON values in a body; none in one that holds no JSON."""
    match media_type:
        case "application/json" | "application/problem+json":
            return [json.loads(body)]
        case "application/x-ndjson":
            return [json.loads(line) for line in body.splitlines()]
        case "text/event-stream":
            lines = [line for line in body.decode().split("\n") if line.startswith("data: ") and line != "data: [DONE]"]
            return [json.loads(line.removeprefix("data: ")) for line in lines]
        case _:
            return []


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if str(value.get("$ref", "")).startswith(_SCHEMAS):
            yield value["$ref"].removeprefix(_SCHEMAS)
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)
