"""Every route, by every kind of caller, with every kind of garbage: refused in the shape of its dialect, by no error of
ours, and without a key by nothing else than that.
"""

from __future__ import annotations

import itertools
import logging
from urllib.parse import unquote

import pytest

from service.api.http.failures import ERROR_SHAPES
from tests.support.access import ADMIN, Route, finished, service_with_keys
from tests.support.garbage import GARBAGE, Garbage, is_fault_of_ours, shape_problem
from tests.support.raw_client import Answer, Client, header_lines, in_parallel
from tests.support.running import RunningService
from tests.support.walking import OPEN, ORIGINS, UNKNOWN, WEBSOCKET, Callers, callers_of, routes_of

KEYLESS = (401, 403, 404, 405, 307)
"""What is said to a caller without a key. A path with needless parts leads to the tidy one, whoever asks for it."""
FOREIGN_REFUSED = (403, 400, 413, 431)
"""What is said to a page that may not call. What cannot be read as HTTP has no origin, whoever sends it."""


class Walk:
    """One caller's way along all routes; what was wrong there."""

    def __init__(self, service: RunningService, kind: str, headers: dict[str, str]) -> None:
        self.wrong: list[str] = []
        self.count = 0
        self._service = service
        self._kind = kind
        self._lines = header_lines(headers)
        self._is_unknown = kind in UNKNOWN and service.config.auth.required
        # A page of a public name has no key.
        self._is_foreign = kind == "foreign_origin" or (kind == "foreign_host" and not service.config.auth.required)

    async def go(self, routes: list[Route], kinds: tuple[Garbage, ...]) -> None:
        """Each kind of garbage to each of the routes."""

        async def send(client: Client, pair: tuple[Route, Garbage]) -> None:
            route, garbage = pair
            self.count += 1
            request = garbage.request(route, *self._lines)
            answer = await client.exchange(request, route.method, is_cut=garbage.is_cut)
            if (problem := self._problem(route, garbage, answer)) is not None:
                self.wrong.append(f"{self._kind}: {route.method} {route.path}, {garbage.name}: {problem}")

        await in_parallel(self._service.port, send, itertools.product(routes, kinds))

    def _problem(self, route: Route, garbage: Garbage, answer: Answer | None) -> str | None:
        if answer is None:
            return None if garbage.is_cut else "no answer"
        if is_fault_of_ours(answer):
            return f"a failure of ours: {answer.status} {answer.body[:300]!r}"
        if self._is_foreign and answer.status not in FOREIGN_REFUSED:
            return f"{answer.status} from where nobody may call"
        # Whoever cannot send a header may still send a token when it is connected.
        keyless = (*KEYLESS, 400) if route.path == WEBSOCKET else KEYLESS
        if self._is_unknown and not OPEN.fullmatch(route.path) and answer.status not in keyless:
            return f"{answer.status} without a key"
        if answer.status >= 400 and route.method != "HEAD":
            return shape_problem(answer, self._service.app[ERROR_SHAPES].find(unquote(garbage.path_of(route))))
        return None


every_caller = pytest.mark.parametrize(
    ("kind", "required"),
    list(itertools.product(Callers._fields, [True, False])),
    ids=[f"{which}-{kind}" for kind, which in itertools.product(Callers._fields, ["keys required", "open"])],
)
PARTS = 4
"""In the suite a caller sends one of so many parts of the garbage to every route, all callers together the whole."""


@every_caller
async def test_garbage_is_refused_whoever_sends_it_wherever(
    kind: str, required: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(GARBAGE) >= 30
    part = (Callers._fields.index(kind) + 2 * required) % PARTS
    await walked(kind, GARBAGE[part::PARTS], caplog, required=required)


@pytest.mark.long
@every_caller
async def test_all_garbage_is_refused_whoever_sends_it_wherever(
    kind: str, required: bool, caplog: pytest.LogCaptureFixture
) -> None:
    await walked(kind, GARBAGE, caplog, required=required)


async def walked(kind: str, garbage: tuple[Garbage, ...], caplog: pytest.LogCaptureFixture, *, required: bool) -> None:
    """Walk all routes as this kind of caller; nothing may be wrong."""
    async with service_with_keys(ORIGINS, required=required) as service:
        callers = await callers_of(service)
        job_id = await finished(service, ADMIN if required else {})
        walk = Walk(service, kind, callers._asdict()[kind])
        await walk.go(routes_of(service, id=job_id, request_id="1"), garbage)
        assert walk.wrong == []
        assert walk.count > 40 * len(garbage)
        assert (await service.call("GET", "/health"))[0] == 200
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
