"""What the API's document says of the websocket; OpenAPI can describe its messages only in words."""

from __future__ import annotations

from service.api.http.failures import PROBLEM_JSON, Problem
from service.api.http.operation import Operation, Operations, ReplyDoc, refusals

_MESSAGES = """
Both sides send JSON objects with a `type`.

The client sends:

- `{"type": "subscribe", "channel": "jobs"}`: every job's changes, after a snapshot of the newest;
- `{"type": "subscribe", "channel": "job", "id": "…", "from": "1.250"}`: one job with its output, from a position
  or from the beginning;
- `{"type": "subscribe", "channel": "stats"}`: how much there is to do, at most once a second;
- `{"type": "unsubscribe", …}` with the same `channel` and `id`;
- `{"type": "auth", "token": "…"}`: a token from `POST /api/token`, at first or before the last one ends.

The server sends:

- `subscribed` with the `channel` and what there is: `jobs` and `total`, `job`, or `stats`;
- `job`: a job's status has changed, or its place in the queue (at most once a second);
- `output`: a piece of a job's output, with `attempt`, `offset`, `kind` (`text`, `thinking`, `tool_calls`), `data` and
  the `position` behind it;
- `restart`: another attempt begins, and what was read so far is worth nothing;
- `done`: the job is final, and its status is told;
- `stats`: the figures;
- `error`: what was asked cannot be done;
- `reset`: there were too many changes to tell; read the list again.

It closes with 4401 when the key or token has ended, and with 1001 when the service stops.
"""

OPERATIONS: Operations = {
    ("GET", "/api/v1/ws"): Operation(
        summary="Open a websocket",
        description=_MESSAGES,
        tag="prompts",
        replies={
            101: ReplyDoc("The connection is a websocket now."),
            **refusals(Problem, PROBLEM_JSON, 400, 401, 403),
        },
    ),
}
