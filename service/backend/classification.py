"""What a failed reply means for its job (wire contract 3.2): the message first, the status second."""

from __future__ import annotations

import re

from pydantic_core import from_json

from service.backend.protocols import Ending
from service.backend.protocols.reading import text_of_error
from service.endpoints import ENDPOINTS, Kind
from service.errors import BackendError, Fault

_MOST_CHARACTERS = 4000

_EMBEDDING = frozenset(row.path for row in ENDPOINTS.values() if row.kind is Kind.EMBEDS)

_PERMANENT_STATUSES = frozenset({400, 401, 402, 403, 404, 405, 409, 410, 411, 413, 414, 415, 422, 431, 501})

_PERMANENT = re.compile(
    r"""
      ^option\ ".*"\ must\ be\ of\b                # 17: 500, although it is the caller's
    | ^invalid\ format:                            # 18: likewise
    | ^invalid\ JSON\ schema\ in\ format           # 19: likewise
    | ^[Ff]ailed\ to\ create\ new\ sequence:       # 2: an image that is none, found by the runner
    | failed\ to\ parse\ grammar                   # 19
    | ^template\b                                  # 20: likewise
    | longer\ than\ the\ context\ length           # 21
    | exceeds\ the\ available\ context\ size       # 22
    | exceeds\ the\ context\ length                # 23: 500 on /api/embeddings
    | exceeds\ maximum\ context\ length            # 24
    | does\ not\ support\ (generate|chat|completion|embedding|thinking|tools|insert|vision|audio|image)  # 10 to 13
    | may\ be\ incompatible\ with\ your\ version   # 34
    | (unknown|unsupported)\ (model\ )?architecture  # 34
    | ^'.*'\ is\ no\ longer\ compatible            # 36
    | ^pull\ model\ manifest:\ file\ does\ not\ exist     # 50
    | ^unauthorized:\ access\ denied|^insecure\ protocol  # 51
    """,
    re.VERBOSE | re.DOTALL,
)

_BUSY = "server busy, please try again"  # 29

_RUNNER = re.compile(
    r"""
      contains\ NaN\ or\ Inf                       # 26
    | ^do\ embedding\ request:.*(EOF|connection\ reset|broken\ pipe)   # 27, 28: it died over this request
    | out[ -]of[ -]memory|cudaMalloc\ failed|failed\ to\ allocate      # 31, 40
    | requires\ .*\ (than\ is|but\ only\ .*)\ available                # 31
    | unable\ to\ load\ full\ model                # 31
    | process\ has\ terminated                     # 32
    | (unable\ to\ load|error\ loading)\ model     # 32, 34: what is wrong with the file
    | ^model\ failed\ to\ load                     # 32
    | ^tensor\ .*\ exceeds\ file\ size             # 34
    | timed\ out\ waiting\ for\ .*\ to\ start      # 33
    | ^model\ runner\ has\ unexpectedly\ stopped   # 38
    | ^an\ error\ was\ encountered\ while\ running\ the\ model         # 39
    | ^error\ (unmarshalling|reading)\ .*response|event\ exceeded\ .*limit  # 41
    """,
    re.VERBOSE | re.DOTALL,
)
"""The runner died or failed over a request. A second time it would most likely do so again."""

_EMBEDDING_FAILURE = re.compile(
    r"^do embedding request:|^unexpected server status:|no longer running|contains NaN or Inf|connection refused"
)
"""Failures of the runner that ``/api/embed`` reports as 400 (rows 26 and 27)."""

_CODES = {
    Fault.PERMANENT: "refused",
    Fault.TRANSIENT: "backend_error",
    Fault.RUNNER: "runner_died",
    Fault.BUSY: "backend_busy",
    Fault.ABSENT: "not_ollama",
}


def classify(status: int | None, message: str, endpoint: str) -> Fault:
    """What an error of Ollama's means. ``status`` is None for an error within a reply of status 200."""
    if _PERMANENT.search(message):
        return Fault.PERMANENT
    if status in _PERMANENT_STATUSES:
        is_runners = status == 400 and endpoint in _EMBEDDING and _EMBEDDING_FAILURE.search(message)
        if not is_runners:
            return Fault.PERMANENT
    if message.startswith(_BUSY):
        return Fault.BUSY
    return Fault.RUNNER if _RUNNER.search(message) else Fault.TRANSIENT


def message_of(body: bytes, content_type: str) -> str:
    """The text of an error in any of the shapes of wire contract 3.1; "" when there is none."""
    if content_type == "text/html":
        return "an HTML page"
    try:
        document = from_json(body)
    except ValueError:
        text = body[: 4 * _MOST_CHARACTERS].decode(errors="replace").strip()
    else:
        is_error = isinstance(document, dict) and "error" in document
        text = text_of_error(document["error"] if is_error else document)
    return text[:_MOST_CHARACTERS]


def failure_of(status: int, body: bytes, content_type: str, endpoint: str) -> BackendError:
    """The error that a reply with a status of 400 or more amounts to."""
    foreign = foreign_reply(status, content_type)
    if foreign is None and body and content_type == "application/json" and not _has_error(body):
        foreign = _not_ollama(status, Fault.ABSENT, "JSON without an error")
    if foreign is not None:
        return foreign
    message = message_of(body, content_type)
    fault = classify(status, message, endpoint)
    return BackendError(message or f"status {status}", code=_code(status, message, fault), fault=fault, status=status)


def failure_of_ending(ending: Ending, endpoint: str) -> BackendError | None:
    """The error that the end of a reply of status 200 amounts to, None when it is complete."""
    if ending.error is not None:
        fault = classify(None, ending.error, endpoint)
        return BackendError(ending.error, code=_code(None, ending.error, fault), fault=fault, status=200)
    if ending.is_complete:
        return None
    # Its connection ended as it should, so the runner stopped early: a repeating model is cut off, an error on /v1 is
    # swallowed (wire contract 2.1, 9.1). Both may well happen again.
    return BackendError("the reply ended before it was complete", code="truncated", fault=Fault.RUNNER, status=200)


def foreign_reply(status: int, content_type: str) -> BackendError | None:
    """The error of a reply that shows by its head that it is not Ollama's, but a proxy's or another program's."""
    if 300 <= status < 400:
        return _not_ollama(status, Fault.ABSENT, "a redirection")
    if content_type != "text/html" or status == 413:
        # 413: a proxy's bound on bodies. The same body would meet it again.
        return None
    # 504: a proxy lost patience with this request. It may do so every time, and the retries must end some time.
    return _not_ollama(status, Fault.TRANSIENT if status == 504 else Fault.ABSENT, "an HTML page")


def _not_ollama(status: int, fault: Fault, what: str) -> BackendError:
    return BackendError(
        f"what answers is not Ollama: {what} with status {status}", code="not_ollama", fault=fault, status=status
    )


def _has_error(body: bytes) -> bool:
    try:
        document = from_json(body)
    except ValueError:
        return False
    return isinstance(document, dict) and "error" in document


def _code(status: int | None, message: str, fault: Fault) -> str:
    if status == 404 and message.startswith("model "):
        return "model_not_found"
    return _CODES[fault]
