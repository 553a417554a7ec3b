"""Every field of every request that the API's document knows, with values of which most are wrong: no error of ours."""

from __future__ import annotations

import itertools
import json
import logging
import re
from typing import Any, get_type_hints

import pytest

from service.api.documentation.document import OPERATIONS
from service.api.http.operation import JSON
from tests.support.access import ADMIN, DOORS, service_with_keys
from tests.support.garbage import WRONG, is_fault_of_ours
from tests.support.raw_client import Client, header_lines, in_parallel, request_of
from tests.support.walking import NOTHING

GOOD = {path: body for path, body, _ in DOORS}
WITH_BODIES = [
    (method, path)
    for (method, path), operation in OPERATIONS.items()
    if operation.request is not None and operation.request_media_type == JSON and get_type_hints(operation.request)
]


def bodies_of(method: str, path: str) -> list[bytes]:
    """A good body with one field after the other replaced by each of the wrong values."""
    good: dict[str, Any] = GOOD.get(path, {"model": "llama3.2", "name": "x"})
    fields = get_type_hints(OPERATIONS[method, path].request)
    return [json.dumps(good | {field: value}).encode() for field, value in itertools.product(fields, WRONG)]


@pytest.mark.parametrize(("method", "path"), WITH_BODIES)
async def test_a_field_of_the_wrong_type_is_no_error_of_ours(
    method: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = re.sub(r"\{(\w+)\}", lambda name: NOTHING.get(name[1], "nothing"), path)
    wrong = []
    async with service_with_keys({"models": {"llama3.2": {"max_tokens": 16}}}, required=False) as service:

        async def send(client: Client, body: bytes) -> None:
            answer = await client.exchange(request_of(method, place, body, *header_lines(ADMIN)), method)
            if answer is None or is_fault_of_ours(answer):
                wrong.append((body, answer))

        await in_parallel(service.port, send, bodies_of(method, path))
    assert wrong == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
