"""The errors: one tree, each also what the standard library would raise, and able to travel between processes."""

from __future__ import annotations

import copy
import pickle

import httpx2
import pytest

import corral
from corral import AsyncClient, CorralError, JobStatus, ResponseError
from corral import errors as module
from corral.errors import error_of_status
from tests.support.raw_server import Exchange, raw_server

KINDS = [getattr(corral, name) for name in corral.__all__ if name.endswith("Error") and name != "JobError"]


PROMISED: dict[type[CorralError], tuple[type[Exception], ...]] = {
    corral.CorralError: (Exception,),
    corral.ConfigurationError: (CorralError, ValueError),
    corral.NotSupportedError: (CorralError,),
    corral.QueueFullError: (CorralError, ValueError),
    corral.CircuitOpenError: (CorralError, RuntimeError),
    corral.ConnectionFailedError: (CorralError, ConnectionError),
    corral.CallTimeoutError: (CorralError, TimeoutError),
    corral.StreamBrokenError: (CorralError,),
    corral.ResponseError: (CorralError,),
    corral.BadRequestError: (ResponseError,),
    corral.AuthenticationError: (ResponseError,),
    corral.PermissionDeniedError: (ResponseError,),
    corral.NotFoundError: (ResponseError,),
    corral.RateLimitError: (ResponseError,),
    corral.ServerError: (ResponseError,),
    corral.JobFailedError: (CorralError,),
    corral.JobCancelledError: (CorralError,),
}
JOB: JobStatus = {
    "id": "j",
    "status": "failed",
    "final": True,
    "model": "m",
    "priority": "high",
    "attempt": 1,
    "failures": 0,
    "created_at": "",
    "updated_at": "",
    "prompt": "p",
}
FULL: list[CorralError] = [
    corral.CircuitOpenError("words", 2.5),
    corral.StreamBrokenError("words", "so far"),
    corral.JobFailedError("words", "expired", JOB),
    corral.JobCancelledError("words", JOB),
    *(kind("words", 418, b"\xffbody", 7.5, is_final=True) for kind in PROMISED if issubclass(kind, ResponseError)),
]


def test_each_error_is_what_was_promised_and_none_is_there_beside_them() -> None:
    assert {kind: kind.__bases__ for kind in KINDS} == PROMISED


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", ["pickle", "copy", "again"])
def test_an_error_keeps_what_is_its_own(error: CorralError, way: str) -> None:
    error.request_id, error.attempts, error.job_id = "me", 3, "j"
    error.__cause__ = ConnectionResetError(104, "reset")
    ways = {"pickle": lambda: pickle.loads(pickle.dumps(error)), "copy": lambda: copy.copy(error), "again": error.again}
    back = ways[way]()
    assert back is not error
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))
    own = {name for name in vars(error) if name not in ("request_id", "attempts", "job_id", "is_final")}
    assert own in (
        {"retry_after_seconds"},
        {"text"},
        {"code", "job"},
        {"job"},
        {"status_code", "message", "body", "retry_after_seconds"},
    )
    assert all(vars(error)[name] for name in own)
    assert isinstance(back.__cause__, ConnectionResetError)


def test_the_tree_is_the_one_that_is_drawn() -> None:
    drawn = {line.split()[1 if line[0] != "C" else 0].strip("├└─│ "): line for line in _drawing()}
    assert {kind.__name__ for kind in KINDS} == set(drawn)
    for kind in KINDS:
        own = [base.__name__ for base in kind.__bases__ if not issubclass(base, CorralError) and base is not Exception]
        assert [f"({name})" in drawn[kind.__name__] for name in own] == [True] * len(own)
        assert issubclass(kind, ResponseError) == ("│" in drawn[kind.__name__] or kind is ResponseError)


def _drawing() -> list[str]:
    assert module.__doc__ is not None
    lines = [line.replace("│   ├──", "│ ").replace("│   └──", "│ ") for line in module.__doc__.splitlines()]
    return [line for line in lines if "Error " in f"{line} " and line[0] in "C├└│"]


@pytest.mark.parametrize("kind", KINDS)
def test_they_travel_with_all_that_they_say(kind: type[CorralError]) -> None:
    error = kind("what is the matter")
    error.request_id, error.attempts, error.job_id = "me", 3, "a job"
    error.__cause__ = OSError(111, "refused")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (str(back), back.__dict__) == (str(error), error.__dict__)
    assert isinstance(back.__cause__, OSError)
    error.__cause__ = StubbornError("no way")
    assert str(pickle.loads(pickle.dumps(error)).__cause__) == "StubbornError: no way"


class StubbornError(Exception):
    """Holds something that cannot travel."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.held = lambda: None


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"no HTTP\r\n\r\n"])
async def test_no_cause_holds_the_key(reply: bytes) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(reply)
        exchange.reset()

    async with raw_server(answer) as server:
        lost = await _failure_at(server.url)
    for error in (lost, await _failure_at(server.url)):
        causes: list[BaseException] = [error]
        while (found := causes[-1].__cause__ or causes[-1].__context__) is not None:
            causes.append(found)
        assert len(causes) > 1
        assert not any(isinstance(getattr(one, "_request", None), httpx2.Request) for one in causes)
        words = pickle.dumps(error)
        assert b"sk-secret" not in words
        assert type(pickle.loads(words).__cause__) is RuntimeError


async def _failure_at(url: str) -> CorralError:
    async with AsyncClient(url, api_key="sk-secret") as client:
        client.max_retries = 0
        with pytest.raises(CorralError) as raised:
            await client.list_models()
    return raised.value


def test_a_status_has_its_error() -> None:
    statuses = (400, 413, 422, 401, 403, 404, 410, 429, 500, 503, 599, 418, 302)
    kinds = {status: error_of_status(status, "m", b"b", 2.0, is_final=False) for status in statuses}
    assert [type(error).__name__ for error in kinds.values()] == [
        "BadRequestError",
        "BadRequestError",
        "BadRequestError",
        "AuthenticationError",
        "PermissionDeniedError",
        "NotFoundError",
        "NotFoundError",
        "RateLimitError",
        "ServerError",
        "ServerError",
        "ServerError",
        "ResponseError",
        "ResponseError",
    ]
    assert "m (HTTP 429)" in str(kinds[429])
