"""What the API's document says of every route: the tables of all dialects, as one."""

from __future__ import annotations

from typing import Any

from service.api import backends, health, pages
from service.api.anthropic import operations as anthropic
from service.api.gateway import operations as gateway
from service.api.ollama import operations as ollama
from service.api.openai import operations as openai
from service.api.operation import JSON, Access, Operation, Operations, Reply
from service.api.pages import file_operation, page_operation
from service.api.prompts import operations as prompts
from service.api.requests import operations as requests
from service.api.websocket import operations as websocket

_OWN: Operations = {
    ("GET", "/openapi.json"): Operation(
        summary="Read this document",
        tag=pages.PAGES,
        access=Access.OPEN,
        replies={200: Reply("The document.", {JSON: dict[str, Any]})},
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
    **gateway.OPERATIONS,
    **backends.OPERATIONS,
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
