"""What the API's document says of every call that waits its turn, whichever dialect it is in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from service.api.http.operation import (
    IDEMPOTENCY_KEY,
    JSON,
    TEXT,
    Operation,
    Operations,
    Parameter,
    ReplyDoc,
    others,
    refusals,
)
from service.endpoints import ENDPOINTS
from service.fields import PriorityWords

_NOT_HERE = "There is no such model, or the Ollama that was asked has no such route: not every version has it."
_JOB = ("X-Job-Id", "X-Queue-Position", "X-Estimated-Start-Seconds", "Idempotent-Replayed")
LISTED = "Those of all backends, newest first; while none of them answers, those that they told last."
_ASKED = (
    Parameter("X-Priority", "header", "How the job stands to others; normal, unless it is said.", PriorityWords),
    Parameter(
        "X-Job-Deadline-Seconds",
        "header",
        "A job that is still queued then is answered with 504.",
        Annotated[float, Field(gt=0, le=366 * 86_400)],
    ),
    Parameter(
        "X-On-Disconnect",
        "header",
        "What becomes of the job when its caller leaves; it is cancelled, unless it is said.",
        Literal["cancel", "finish"],
    ),
    IDEMPOTENCY_KEY,
)


def relayed(
    path: str, summary: str, request: Any, content: Mapping[str, Any], error: Any, *, is_everywhere: bool = True
) -> Operations:
    """An endpoint whose calls are relayed byte for byte when their turn has come. ``content`` is the type of Ollama's
    reply for each media type, and ``error`` is the type of the dialect's errors. Ollamas that lack the endpoint, where
    it is not ``is_everywhere``, say so in text.
    """
    endpoint = ENDPOINTS[path]
    operation = Operation(
        summary=summary,
        tag=endpoint.door,
        request=request,
        request_media_type=endpoint.body,
        parameters=_ASKED,
        replies={
            200: ReplyDoc(
                "Ollama's reply, as it comes. A stream that is silent has signs of life between its lines or events "
                "(`queue.heartbeat_seconds`), and after the first of them a refusal is an error in the stream, with "
                "the status that it would have had. A stream that breaks off ends with an error: the last event, or "
                "the last line and then a broken connection. A reply in one piece has no signs of life."
                if endpoint.streamed_reader is not None
                else "Ollama's reply.",
                content,
                _JOB,
            ),
            **refusals(error, JSON, 401, 403, 408, 413, 415, 422),
            **refusals(error, JSON, 400, 404, 429, 499, 500, 503, 504, headers=_JOB),
            **({} if is_everywhere else {404: ReplyDoc(_NOT_HERE, {JSON: error, TEXT: str}, _JOB)}),
            "default": others({JSON: error}, _JOB),
        },
    )
    return {("POST", path): operation}
