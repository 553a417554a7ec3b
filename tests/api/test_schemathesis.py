"""Whatever schemathesis makes of the document, well-formed and not: nothing of ours breaks, and every reply is one that
the document knows.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

from service.api.documentation.document import OPERATIONS
from service.api.http.operation import Access, Operation
from service.simulated import SimulatedModel, SimulatedSettings
from tests.support.access import ADMIN, service_with_keys
from tests.support.openapi import Document
from tests.support.running import PATIENCE_SECONDS
from tests.support.same_chance import SAME_EVERY_TIME

MODELS = (
    SimulatedModel("llama3.2", capabilities=("completion", "tools", "thinking", "insert", "vision")),
    SimulatedModel("nomic-embed-text", capabilities=("embedding",)),
)
ASKED = {"model": "llama3.2", "prompt": "Why?", "input": "Why?", "messages": [{"role": "user", "content": "Why?"}]}
# Whoever asks for no tokens gets them without end, and waits for ever.
BOUNDED_ANSWERS = {"models": {"llama3.2": {"max_tokens": 16}}}
OURS = (503, 504)
"""The only failures of ours that may be told."""

BOUNDED = settings(SAME_EVERY_TIME, max_examples=12)


class Target(logging.Handler):
    """A service that serves in a thread of its own, since schemathesis waits for each reply. ``known`` are values that
    it knows; what it logs as an error is kept.
    """

    def __init__(self, url: str, known: dict[str, Any], document: dict[str, Any]) -> None:
        super().__init__(logging.ERROR)
        self.url = url
        self.known = known
        self.document = Document(document)
        self.schema = schemathesis.openapi.from_dict(document)
        self.schema.config.generation.update(with_security_parameters=False)
        self._errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._errors.append(self.format(record))

    def take_errors(self) -> list[str]:
        """What was logged since the last look."""
        errors, self._errors = self._errors, []
        return errors


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with _in_a_thread() as found:
        logging.getLogger().addHandler(found)
        yield found
        logging.getLogger().removeHandler(found)


@contextmanager
def _in_a_thread() -> Iterator[Target]:
    loop = asyncio.new_event_loop()
    over, ready = asyncio.Event(), threading.Event()
    found: list[Target] = []

    async def serve() -> None:
        quick = SimulatedSettings(models=MODELS, parallel=8, tokens=3)
        async with service_with_keys(BOUNDED_ANSWERS, required=False, settings=quick) as service:
            while (await service.call("GET", "/api/version"))[0] != 200:
                pass
            known = {"id": await service.finished(), "request_id": "1", **ASKED}
            found.append(Target(service.url, known, (await service.call("GET", "/openapi.json"))[1]))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(PATIENCE_SECONDS)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def _can_be_wrong(operation: Operation) -> bool:
    """Whether anything in a request could be against the document: any string is a name."""
    kinds = [operation.request, operation.query, *(parameter.kind for parameter in operation.parameters)]
    return any(kind not in (None, str, bytes) for kind in kinds)


ATTEMPTS = [("positive", *place) for place in OPERATIONS]
ATTEMPTS += [("negative", *place) for place, operation in OPERATIONS.items() if _can_be_wrong(operation)]


@pytest.mark.parametrize(("mode", "method", "path"), ATTEMPTS)
def test_every_reply_is_one_that_the_document_knows(target: Target, mode: str, method: str, path: str) -> None:
    cases = target.schema[path][method].as_strategy(GenerationMode(mode))
    is_managed = OPERATIONS[method, path].access is Access.ADMIN

    @BOUNDED
    @given(case=cases, is_known=st.booleans(), caller=st.sampled_from([ADMIN, {}]))
    def attempt(case: Case[Any], is_known: bool, caller: dict[str, str]) -> None:
        if is_known:
            _name_what_is_there(case, target.known)
        response = case.call(base_url=target.url, headers=caller, timeout=PATIENCE_SECONDS)
        if response.status_code >= 500 and "x-job-id" not in response.headers and not is_managed:
            assert response.status_code in OURS, response.text
        content_type = response.headers.get("content-type", [""])[0]
        target.document.check(method, path, response.status_code, content_type, response.content)
        assert target.take_errors() == []

    attempt()


def _name_what_is_there(case: Case[Any], known: dict[str, Any]) -> None:
    """Half of the requests are about something that exists, so that they come further than to "not found"."""
    for name in set(case.path_parameters or {}) & set(known):
        case.path_parameters[name] = known[name]
    if isinstance(case.body, dict):
        for name in set(case.body) & set(known):
            case.body[name] = known[name]
