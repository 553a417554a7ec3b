"""What a worker must know of a request's body before it sends it."""

from __future__ import annotations

from service.endpoints import ENDPOINTS, Body
from service.errors import InvalidRequestError
from service.go_json import fields_of

_FORMS = frozenset(row.path for row in ENDPOINTS.values() if row.body is Body.MULTIPART)


def is_form(endpoint: str) -> bool:
    """Whether the request is a form, which is stored in another way than it is sent (:mod:`service.form_data`)."""
    return endpoint in _FORMS


def keep_alive_in(body: bytes) -> object:
    """The ``keep_alive`` in a body of JSON; None where there is none."""
    try:
        return fields_of(body).get("keep_alive")
    except InvalidRequestError:
        # It was stored by an older release, which took more than one JSON value.
        return None
