"""What the API's document says of Anthropic's API."""

from __future__ import annotations

from service.api.anthropic.errors import AnthropicError
from service.api.anthropic.models import MessagesRequest
from service.api.anthropic.replies import MessagesEvent, MessagesReply
from service.api.calls.operations import relayed
from service.api.operation import EVENT_STREAM, JSON, Operations

OPERATIONS: Operations = {
    ("POST", "/v1/messages"): relayed(
        "Answer a chat",
        "anthropic",
        MessagesRequest,
        {JSON: MessagesReply, EVENT_STREAM: MessagesEvent},
        AnthropicError,
    ),
}
