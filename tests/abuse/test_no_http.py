"""What the parser refuses, and what cannot be unpacked: in the shape of the path's dialect, whoever sends it."""

from __future__ import annotations

import logging

import pytest

from service.api.http.failures import ERROR_SHAPES
from tests.support.access import ADMIN, Route, service_with_keys
from tests.support.garbage import NO_HTTP, PACKED, Garbage, is_fault_of_ours, shape_problem
from tests.support.raw_client import Answer, Client, header_lines
from tests.support.walking import routes_of


@pytest.mark.parametrize("garbage", NO_HTTP + PACKED, ids=lambda garbage: garbage.name)
async def test_what_is_no_http_is_no_failure_of_ours_and_refused_as_the_dialect_does(
    garbage: Garbage, caplog: pytest.LogCaptureFixture
) -> None:
    wrong: list[tuple[Route, Answer | str | None]] = []
    async with service_with_keys() as service:
        client = Client(service.port)
        for shown in ((), header_lines(ADMIN)):
            for route in [route for route in routes_of(service) if route.method == "POST"]:
                # What cannot be read to its end ends the connection.
                client.close()
                answer = await client.exchange(garbage.request(route, *shown), route.method)
                shape = service.app[ERROR_SHAPES].find(garbage.path_of(route))
                if answer is None or is_fault_of_ours(answer):
                    wrong.append((route, answer))
                elif answer.status >= 400 and (problem := shape_problem(answer, shape)):
                    wrong.append((route, problem))
        client.close()
    assert wrong == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
