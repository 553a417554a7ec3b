"""Calls that name no model: Ollama words the refusal, and while no backend answers we do, in its words."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from service import go_json
from service.api.access.admission import count
from service.api.dropin.passing import pass_refusal
from service.endpoints import Endpoint, Kind
from service.errors import InvalidRequestError, NoBackendError, NotFoundError

_LONGEST_SHOWN = 600
"""Characters of a name. It may be as long as the body."""
_KINDS: dict[type, str] = {bool: "bool", int: "number", float: "number", list: "array", dict: "object", str: "string"}


async def refuse_unnamed(request: web.Request, endpoint: Endpoint, body: bytes, model: object) -> web.StreamResponse:
    """The refusal of a call whose ``model`` none of Ollama's can be; it counts as a request of its caller.

    Raises LimitReachedError; NotFoundError for what is a name after all, which Ollama might read in another way (it
    drops spaces, and what stands before ``://``); and while no backend answers InvalidRequestError or NotFoundError.
    """
    count(request)
    if isinstance(model, str) and model.strip():
        raise no_such_model(endpoint.kind, model)
    if endpoint.is_form:
        # What is kept of it is no form that a backend could read.
        raise InvalidRequestError("model is required")
    try:
        return await pass_refusal(request, endpoint.path, body)
    except NoBackendError:
        raise _in_words_of_ollama(endpoint, go_json.parse(body), model) from None


def no_such_model(kind: Kind, model: str) -> NotFoundError:
    """What Ollama says of a model that it does not have (wire contract 3.2, rows 7 and 8)."""
    shown = model.encode("utf-8", "replace").decode()[:_LONGEST_SHOWN]
    embeds = f"model {json.dumps(shown, ensure_ascii=False)} not found, try pulling it first"
    return NotFoundError(embeds if kind is Kind.EMBEDS else f"model '{shown}' not found")


def wrong_type(value: object, field: str, wanted: str) -> InvalidRequestError:
    """What Go says of a value in a field that is of another type: ``field`` as ``PullRequest.stream``, and its type
    (wire contract 3.2, row 3).
    """
    kind = next(word for known, word in _KINDS.items() if isinstance(value, known))
    name = field.rpartition(".")[2]
    return InvalidRequestError(f"json: cannot unmarshal {kind} into Go struct field {field} of type {wanted}", name)


def _in_words_of_ollama(endpoint: Endpoint, value: Any, model: object) -> InvalidRequestError | NotFoundError:
    """What Ollama says of the body that holds this JSON value (wire contract 3.2, rows 2 to 4)."""
    if value is not None and not isinstance(value, dict):
        return InvalidRequestError(
            f"json: cannot unmarshal {_KINDS[type(value)]} into Go value of type {endpoint.go_type}"
        )
    if model is not None and not isinstance(model, str):
        return wrong_type(model, f"{endpoint.go_type.rpartition('.')[2]}.model", "string")
    if endpoint.is_model_required:
        return InvalidRequestError("model is required", "model")
    return NotFoundError("model '' not found")
