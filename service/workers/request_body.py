"""What a worker must know of a request's body before it sends it."""

from __future__ import annotations

from service.errors import InvalidRequestError
from service.go_json import fields_of


def keep_alive_in(body: bytes) -> object:
    """The ``keep_alive`` in a body of JSON; None where there is none."""
    try:
        return fields_of(body).get("keep_alive")
    except InvalidRequestError:
        # It was stored by an older release, which took more than one JSON value.
        return None
