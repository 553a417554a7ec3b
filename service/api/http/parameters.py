"""What stands in the address: ids in the path, values in the query."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from service.api.http.bodies import check_text
from service.errors import NotFoundError
from service.job import JOB_ID
from service.validation import validated

LONGEST_ADDRESS = 65_536
"""Bytes of a request's first line. A list may be searched for 1,000 characters, which are up to 12,000 when escaped."""

_Query = TypeVar("_Query", bound=BaseModel)

_LARGEST_SEQ = 2**63 - 1


@lru_cache(maxsize=32)
def _defaults(model: type[_Query]) -> _Query:
    """The empty query, which all requests can share, since nobody changes it."""
    return model()


def job_id_of(request: web.Request) -> str:
    """The job that the path names. Raises NotFoundError for what cannot be one."""
    given = request.match_info["id"]
    job_id = given.lower()
    if not JOB_ID.fullmatch(job_id):
        raise NotFoundError(
            f"there is no prompt {given[:100]!r}: an id looks like 01890a5d-ac96-774b-bcce-b302099a8057"
        )
    return job_id


def seq_of(request: web.Request) -> int:
    """The integer id that the path names; its route admits digits only. Raises NotFoundError beyond 63 bits."""
    digits = request.match_info["request_id"]
    if len(digits) > 19 or int(digits) > _LARGEST_SEQ:
        raise NotFoundError(f"there is no request {digits[:40]}")
    return int(digits)


def query_of(request: web.Request, model: type[_Query]) -> _Query:
    """The query as ``model``. An empty value counts as not given, and unknown names are ignored.

    Raises InvalidRequestError.
    """
    if not request.query_string:
        defaults: _Query = _defaults(model)
        return defaults
    values = {}
    for name, value in request.query.items():
        if value and name in model.model_fields:
            check_text(value, name)
            values[name] = value
    return validated(model, values)
