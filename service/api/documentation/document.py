"""The API's document (OpenAPI 3.1): the routes that are served, what the dialects say of them, and the models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from aiohttp import web

from service.api import pages
from service.api.anthropic import openapi as anthropic
from service.api.documentation.schemas import Schemas
from service.api.http.operation import JSON, Access, Operation, Operations, Parameter, ReplyDoc
from service.api.live.websocket import openapi as websocket
from service.api.management import audit, backends, health
from service.api.management import openapi as management
from service.api.ollama import openapi as ollama
from service.api.openai import openapi as openai
from service.api.pages import file_operation, page_operation
from service.api.prompts import openapi as prompts
from service.api.requests import openapi as requests

_OWN: Operations = {
    ("GET", "/openapi.json"): Operation(
        summary="Read this document",
        tag=pages.PAGES,
        access=Access.OPEN,
        replies={200: ReplyDoc("The document.", {JSON: dict[str, Any]})},
    ),
    ("GET", "/docs"): page_operation("Try the API"),
    ("GET", "/redoc"): page_operation("Read about the API"),
    ("GET", "/docs/assets/{name}"): file_operation("Read a file of the viewers"),
}

OPERATIONS: Operations = {
    **prompts.OPERATIONS,
    **websocket.OPERATIONS,
    **requests.OPERATIONS,
    **ollama.OPERATIONS,
    **openai.OPERATIONS,
    **anthropic.OPERATIONS,
    **management.OPERATIONS,
    **backends.OPERATIONS,
    **audit.OPERATIONS,
    **health.OPERATIONS,
    **pages.OPERATIONS,
    **_OWN,
}
"""In the order in which readers see them."""

TAGS = {
    "prompts": "Corral's own API: submit, follow, leave and come back.",
    "requests": "The same jobs under integer ids.",
    "ollama": (
        "Ollama's own API, drop-in: calls wait their turn and are relayed as they are, every field and every byte. "
        "A request holds what Ollama takes; what it reads is described here, and everything else travels as well."
    ),
    "openai": "OpenAI's API as Ollama has it, drop-in.",
    "anthropic": "Anthropic's API as Ollama has it, drop-in.",
    "gateway": "Models, keys, tokens and statistics.",
    "operation": "For who keeps the service running.",
    pages.PAGES: "For browsers.",
}


_ABOUT = (
    "A durable queue and gateway in front of one or more Ollama servers. Every call is a job, whichever door it came "
    "through: it is stored, waits its turn, and can be watched, left and come back to. Replies are never cached, and "
    "`HEAD` is answered wherever `GET` is. Bodies may be packed with `Content-Encoding: gzip`, "
    "`deflate` or `zstd`, one at a time. "
    "An `X-Request-ID` of up to 128 printable ASCII characters comes back on the reply."
)
_HEADERS = {
    "X-Job-Id": ("The job behind this reply.", {"type": "string", "format": "uuid"}),
    "X-Queue-Position": ("How many jobs went first, and this one; 0: none.", {"type": "integer", "minimum": 0}),
    "X-Estimated-Start-Seconds": ("When it is likely to begin, in seconds.", {"type": "number", "minimum": 0}),
    "X-List-Age-Seconds": (
        "Since when the list is so, where nobody could be asked: it is what backends told last.",
        {"type": "integer", "minimum": 0},
    ),
    "Accept-Encoding": ("How a body may be packed.", {"type": "string"}),
    "Idempotent-Replayed": ("The reply belongs to an earlier request.", {"type": "string", "enum": ["true"]}),
    "Location": ("Where to ask for it.", {"type": "string", "format": "uri-reference"}),
    "Retry-After": ("When to come again, in seconds.", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": ("What is needed.", {"type": "string"}),
}
_KEYS: dict[str, dict[str, str]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token from `POST /api/token`."},
    "api_key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "The same, for Anthropic's clients.",
    },
}


def build_document(app: web.Application, *, are_keys_required: bool) -> dict[str, Any]:
    """The document of the routes of ``app``."""
    served = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    operations = {place: operation for place, operation in OPERATIONS.items() if place in served}
    schemas = Schemas(_kinds(operations))
    keys: list[dict[str, list[str]]] = [{name: []} for name in _KEYS]
    access = {Access.OPEN: [], Access.ADMIN: keys, Access.CALLER: keys if are_keys_required else [{}, *keys]}
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in operations.items():
        described = _operation(method, operation, schemas)
        name = re.sub(r"\W+", "_", f"{method.lower()} {path}").strip("_")
        described |= {"operationId": name, "security": access[operation.access]}
        paths.setdefault(path, {})[method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Corral",
            "version": _version(),
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "."}],
        "tags": [{"name": name, "description": words} for name, words in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "headers": {name: {"description": words, "schema": kind} for name, (words, kind) in _HEADERS.items()},
            "securitySchemes": _KEYS,
        },
    }


def _kinds(operations: Operations) -> Iterator[Any]:
    for operation in operations.values():
        yield from (kind for kind in (operation.request, operation.query) if kind is not None)
        yield from (parameter.kind for parameter in operation.parameters)
        for reply in operation.replies.values():
            yield from reply.content.values()


def _operation(method: str, operation: Operation, schemas: Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"tags": [operation.tag], "summary": operation.summary}
    if operation.description:
        described["description"] = operation.description
    parameters = [*_parameters(operation.parameters, schemas), *_query(operation, schemas)]
    if parameters:
        described["parameters"] = parameters
    if operation.request is not None:
        content = {operation.request_media_type: {"schema": schemas.find(operation.request)}}
        described["requestBody"] = {"required": True, "content": content}
    described["responses"] = {
        # A reply to HEAD never has a body.
        str(status): _reply(reply if method != "HEAD" else replace(reply, content={}), schemas)
        for status, reply in operation.replies.items()
    }
    return described


def _parameters(parameters: Iterable[Parameter], schemas: Schemas) -> Iterator[dict[str, Any]]:
    for one in parameters:
        yield {
            "name": one.name,
            "in": one.place,
            "description": one.description,
            "required": one.place == "path",
            "schema": schemas.find(one.kind),
        }


def _query(operation: Operation, schemas: Schemas) -> Iterator[dict[str, Any]]:
    if operation.query is None:
        return
    for name, schema in schemas.take(operation.query)["properties"].items():
        described = {key: value for key, value in schema.items() if key not in ("anyOf", "description", "default")}
        # A parameter that is left out is absent, and not null.
        described |= next((each for each in schema.get("anyOf", ()) if each != {"type": "null"}), {})
        if schema.get("default") is not None:
            described["default"] = schema["default"]
        words = {"description": schema["description"]} if "description" in schema else {}
        yield {"name": name, "in": "query", **words, "schema": described}


def _reply(reply: ReplyDoc, schemas: Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"description": reply.description}
    if reply.headers:
        described["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in reply.headers}
    if reply.content:
        described["content"] = {name: {"schema": schemas.find(kind)} for name, kind in reply.content.items()}
    return described


def _version() -> str:
    try:
        return version("ollama-corral")
    except PackageNotFoundError:
        return "unreleased"
