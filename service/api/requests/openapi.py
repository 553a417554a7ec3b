"""What the API's document says of the requests API."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from service.api.http.failures import PROBLEM_JSON, Problem
from service.api.http.operation import (
    IDEMPOTENCY_KEY,
    JSON,
    Operation,
    Operations,
    Parameter,
    ReplyDoc,
    refusals,
)
from service.api.requests.schema import AcceptedRequest, GenerateRequest, ListQuery, RequestPage, RequestReply

_TAG = "requests"
_ID = Parameter("request_id", "path", "The request's id.", Annotated[int, Field(ge=0)])

OPERATIONS: Operations = {
    ("POST", "/generate"): Operation(
        summary="Submit a prompt",
        description="Answered only after the job is on disk.",
        tag=_TAG,
        request=GenerateRequest,
        parameters=(IDEMPOTENCY_KEY,),
        replies={
            200: ReplyDoc(
                "The request is stored and waits for its turn.", {JSON: AcceptedRequest}, ("Idempotent-Replayed",)
            ),
            **refusals(Problem, PROBLEM_JSON, 400, 401, 403, 404, 408, 413, 415, 422, 429, 503),
        },
    ),
    ("GET", "/status/{request_id}"): Operation(
        summary="Read a request and its response",
        tag=_TAG,
        parameters=(_ID,),
        replies={
            200: ReplyDoc("The request.", {JSON: RequestReply}),
            **refusals(Problem, PROBLEM_JSON, 401, 404, 410, 503),
        },
    ),
    ("GET", "/requests"): Operation(
        summary="List the requests",
        tag=_TAG,
        query=ListQuery,
        replies={
            200: ReplyDoc("A page of them, newest first.", {JSON: RequestPage}),
            **refusals(Problem, PROBLEM_JSON, 400, 401, 503),
        },
    ),
}
