"""What Anthropic's API answers, as Ollama has it (wire contract 1.8 and 2.5); there may be more."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from typing_extensions import TypedDict

from service.api.reply_fields import one_of


class MessagesReply(TypedDict):
    """The answer."""

    id: str
    type: Annotated[str, one_of(["message"])]
    role: str
    model: str
    content: list[dict[str, Any]]
    stop_reason: NotRequired[str | None]
    usage: NotRequired[dict[str, Any]]


class MessagesEvent(TypedDict):
    """The data of one event."""

    type: str
