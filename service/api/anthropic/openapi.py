"""What the API's document says of Anthropic's API."""

from __future__ import annotations

from service.api.anthropic.errors import AnthropicError
from service.api.anthropic.schema import MessagesEvent, MessagesReply, MessagesRequest
from service.api.dropin.openapi import relayed
from service.api.http.operation import EVENT_STREAM, JSON, Operations

OPERATIONS: Operations = {
    **relayed(
        "/v1/messages",
        "Answer a chat",
        MessagesRequest,
        {JSON: MessagesReply, EVENT_STREAM: MessagesEvent},
        AnthropicError,
    ),
}
