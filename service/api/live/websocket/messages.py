"""What clients may say on the websocket."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.http.bodies import parse_object
from service.errors import InvalidRequestError
from service.json_bounds import check_at_once
from service.validation import validated

_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


class Subscription(BaseModel):
    """``subscribe`` or ``unsubscribe``: ``id`` and ``from`` (a position) belong to the channel ``job``."""

    model_config = _STRICT

    type: Literal["subscribe", "unsubscribe"]
    channel: Literal["jobs", "job", "stats"]
    id: str | None = Field(default=None, max_length=100)
    from_: str | None = Field(default=None, alias="from", max_length=100)


class Authenticate(BaseModel):
    """A token, since a browser cannot send the header with a key."""

    model_config = _STRICT

    type: Literal["auth"]
    token: str = Field(max_length=8192)


ClientMessage = Subscription | Authenticate

_MODELS: dict[object, type[ClientMessage]] = {
    "subscribe": Subscription,
    "unsubscribe": Subscription,
    "auth": Authenticate,
}


def read_message(text: str) -> ClientMessage:
    """What the client said. Raises InvalidRequestError."""
    message_bytes = text.encode()
    # It is no larger than websocket.max_message_bytes.
    check_at_once(message_bytes)
    fields = parse_object(message_bytes)
    kind = fields.get("type")
    model = _MODELS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise InvalidRequestError("type: must be one of subscribe, unsubscribe, auth", "type")
    message: ClientMessage = validated(model, fields)
    if isinstance(message, Subscription) and message.channel == "job" and not message.id:
        raise InvalidRequestError("id: is required to follow one job", "id")
    return message
