"""What the API's document says of keys, tokens and statistics."""

from __future__ import annotations

from service.api.http.failures import PROBLEM_JSON, Problem
from service.api.http.operation import JSON, Access, Operation, Operations, Parameter, ReplyDoc, refusals
from service.api.management.schema import ModelList, PeriodReply, StatisticsReply, TokenReply
from service.keys.shapes import CreatedKey, KeyList, KeyReply, KeyRequest, RevocationQuery

_TAG = "gateway"
_ID = Parameter("id", "path", "The key's id, which is not the key.")
_REFUSED = refusals(Problem, PROBLEM_JSON, 401, 503)
_NOT_ADMIN = {**_REFUSED, **refusals(Problem, PROBLEM_JSON, 403)}
_OF_A_KEY = {200: ReplyDoc("The key.", {JSON: KeyReply}), **_NOT_ADMIN, **refusals(Problem, PROBLEM_JSON, 404)}

OPERATIONS: Operations = {
    ("GET", "/api/models"): Operation(
        summary="List the models of all backends",
        tag=_TAG,
        replies={200: ReplyDoc("The models, by name.", {JSON: ModelList}), **_REFUSED},
    ),
    ("GET", "/api/keys"): Operation(
        summary="List the keys",
        tag=_TAG,
        access=Access.ADMIN,
        replies={200: ReplyDoc("All keys, revoked ones too.", {JSON: KeyList}), **_NOT_ADMIN},
    ),
    ("POST", "/api/keys"): Operation(
        summary="Create a key",
        description="The reply is the only one that ever holds the key itself.",
        tag=_TAG,
        access=Access.ADMIN,
        request=KeyRequest,
        replies={
            201: ReplyDoc("The new key.", {JSON: CreatedKey}, ("Location",)),
            **_NOT_ADMIN,
            **refusals(Problem, PROBLEM_JSON, 400, 408, 413, 415),
        },
    ),
    ("GET", "/api/keys/{id}"): Operation(
        summary="Read one key", tag=_TAG, access=Access.ADMIN, parameters=(_ID,), replies=_OF_A_KEY
    ),
    ("DELETE", "/api/keys/{id}"): Operation(
        summary="Revoke a key",
        description=(
            "It opens nothing any more, and what was asked with it ends: when this is answered none of its jobs is "
            "queued. The key stays in the list, and what was answered stays to be read by those who may."
        ),
        tag=_TAG,
        access=Access.ADMIN,
        parameters=(_ID,),
        query=RevocationQuery,
        replies={**_OF_A_KEY, **refusals(Problem, PROBLEM_JSON, 400)},
    ),
    ("POST", "/api/token"): Operation(
        summary="Trade a key for a token",
        description=(
            "For websockets and EventSources, which cannot send headers: they send the token as the message ``auth`` "
            "or as ``?token=``."
        ),
        tag=_TAG,
        replies={200: ReplyDoc("The token.", {JSON: TokenReply}), **_REFUSED},
    ),
    ("GET", "/api/stats"): Operation(
        summary="Read what was asked and what it took",
        description="Of the caller's own key, or address; an admin sees all.",
        tag=_TAG,
        replies={200: ReplyDoc("The statistics of this period.", {JSON: StatisticsReply}), **_REFUSED},
    ),
    ("POST", "/api/stats/reset"): Operation(
        summary="Begin a new period",
        description="Nothing is deleted.",
        tag=_TAG,
        access=Access.ADMIN,
        replies={200: ReplyDoc("When it began.", {JSON: PeriodReply}), **_NOT_ADMIN},
    ),
}
