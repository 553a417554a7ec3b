"""What a failed reply means for its job (wire contract 3.2): the message first, the status second."""

from __future__ import annotations

import re
from typing import NamedTuple

from service.backend.error_texts import OF_EMBEDDING_RUNNER, found
from service.backend.protocols import Ending
from service.backend.protocols.reading import decoded, text_of_error
from service.endpoints import ENDPOINTS, Kind
from service.errors import NOT_OLLAMA, OUTPUT_FAILED, OUTPUT_TOO_LARGE, REPEATED, TRUNCATED, BackendError, Fault

_MOST_CHARACTERS = 4000

_NO_MODEL = re.compile(r"""model ('.*'|".*") not found""", re.DOTALL)

_EMBEDDING = frozenset(row.path for row in ENDPOINTS.values() if row.kind is Kind.EMBEDS)

_PERMANENT_STATUSES = frozenset({400, 401, 402, 403, 404, 405, 409, 410, 411, 413, 414, 415, 422, 431, 501})

_TOLD_BY_STATUS = frozenset({429, 499, 502, 503, 504})
"""What passes, whatever the text is (rows 29, 30, 48 and 49)."""

_CODES = {
    Fault.PERMANENT: "refused",
    Fault.OUTPUT: OUTPUT_FAILED,
    Fault.TRANSIENT: "backend_error",
    Fault.RUNNER: "runner_died",
    Fault.BUSY: "backend_busy",
    Fault.ABSENT: "not_ollama",
}


class Classified(NamedTuple):
    """Whose fault an error is."""

    fault: Fault
    is_known: bool
    """Its text or its status is one of the contract's. An unknown one is taken for something that passes."""


def classify(status: int | None, message: str, endpoint: str) -> Classified:
    """What an error of Ollama's means. ``status`` is None for an error within a reply that has no status of its own."""
    is_refused = status in _PERMANENT_STATUSES
    if status == 400 and endpoint in _EMBEDDING and OF_EMBEDDING_RUNNER.search(message):
        is_refused = False
    row = found(message, is_refused=is_refused)
    if row is not None:
        return Classified(row.fault, is_known=True)
    if is_refused:
        return Classified(Fault.PERMANENT, is_known=True)
    return Classified(Fault.TRANSIENT, is_known=status in _TOLD_BY_STATUS)


def message_of(body: bytes, content_type: str) -> str:
    """The text of an error in any of the shapes of wire contract 3.1; "" when there is none."""
    if content_type == "text/html":
        return "an HTML page"
    try:
        document = decoded(body)
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
    return _failure(status, message, endpoint, message or f"status {status}")


def failure_of_ending(ending: Ending, endpoint: str) -> BackendError | None:
    """The error that the end of a reply of status 200 amounts to, None when it is complete."""
    if ending.is_too_large:
        return BackendError(ending.error or "", code=OUTPUT_TOO_LARGE, fault=Fault.PERMANENT, status=200)
    if ending.error is not None:
        return _failure(ending.error_status, ending.error, endpoint, ending.error)
    if ending.is_complete:
        return None
    if ending.is_repeated:
        what = "the model wrote the same again and again, and Ollama has ended its answer"
        return BackendError(what, code=REPEATED, fault=Fault.ENDED, status=200)
    # Its connection ended as it should: errors on /v1 are swallowed (wire contract 9.1), and of a whole reply it cannot
    # be told that the model repeated itself (2.1). What the model writes next time may well be another thing.
    return BackendError("the reply ended before it was complete", code=TRUNCATED, fault=Fault.OUTPUT, status=200)


def foreign_reply(status: int, content_type: str) -> BackendError | None:
    """The error of a reply that shows by its head that it is not Ollama's, but a proxy's or another program's."""
    if 300 <= status < 400:
        return _not_ollama(status, Fault.ABSENT, "a redirection")
    if content_type != "text/html" or status == 413:
        # 413: a proxy's bound on bodies. The same body would meet it again.
        return None
    if 400 <= status <= 431:
        # A proxy's refusal of this request, or of all: whoever asks it for its version finds out.
        return _not_ollama(status, Fault.PERMANENT, "an HTML page")
    # 504: a proxy lost patience with this request. It may do so every time, and the retries must end some time.
    return _not_ollama(status, Fault.TRANSIENT if status == 504 else Fault.ABSENT, "an HTML page")


def _not_ollama(status: int, fault: Fault, what: str) -> BackendError:
    return BackendError(
        f"what answers is not Ollama: {what} with status {status}", code=NOT_OLLAMA, fault=fault, status=status
    )


def _has_error(body: bytes) -> bool:
    try:
        document = decoded(body)
    except ValueError:
        return False
    return isinstance(document, dict) and "error" in document


def _failure(status: int | None, message: str, endpoint: str, told: str) -> BackendError:
    fault, is_known = classify(status, message, endpoint)
    code = "model_not_found" if status in (404, None) and _NO_MODEL.match(message) else _CODES[fault]
    # What has no status of its own came under status 200.
    return BackendError(told, code=code, fault=fault, status=status or 200, is_known=is_known)
