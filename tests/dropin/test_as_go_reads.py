"""Whatever the service takes is read by Go's own decoder as the service has read it, or Go refuses it."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings

from service.api.dropin.reading import read_call
from service.config.sections import duration_seconds
from service.endpoints import ENDPOINTS
from service.errors import InvalidRequestError
from tests.support.bodies_of_calls import calls
from tests.support.checkout import ROOT
from tests.support.same_chance import SAME_EVERY_TIME

SOURCE = ROOT / "tests/support/go_decoder.go"
SECOND = 10**9
FOREVER = 2**63 - 1


class GoDecoder:
    """The program, which answers each line with one."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def read(self, path: str, body: bytes) -> dict[str, Any]:
        """What Go reads in the body; with ``error`` when it reads nothing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(path.encode() + b" " + base64.b64encode(body) + b"\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoDecoder]:
    with go_decoder(tmp_path_factory) as decoder:
        yield decoder


@contextmanager
def go_decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoDecoder]:
    """The program, built and running; the test is skipped where there is no Go."""
    found = shutil.which("go", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/go/bin")))
    if found is None:
        pytest.skip("no Go here: its decoder cannot be asked")
    program = tmp_path_factory.mktemp("go") / "decoder"
    offline = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GO111MODULE": "off", "GOFLAGS": "", "CGO_ENABLED": "0"}
    subprocess.run([found, "build", "-o", program, SOURCE], check=True, env=os.environ | offline)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield GoDecoder(process)


def alike(value: Any) -> Any:
    """A JSON value without what two decoders may write differently: what is no character, and kinds of numbers."""
    match value:
        case str():
            return re.sub("[\ud800-\udfff\ufffd]+", "\ufffd", value)
        case bool() | None:
            return value
        case int() | float():
            return float(value)
        case list():
            return [alike(one) for one in value]
        case _:
            return {alike(name): alike(one) for name, one in value.items()}


def folded(name: str) -> str:
    return name.lower().replace("\u017f", "s").replace("\u212a", "k")


def check_keep_alive(ours: Any, of_go: int | None) -> None:
    """Fails unless both are the same time; one that is longer than Go can tell may be any but none."""
    if ours is None or of_go is None:
        assert ours is None
        assert of_go is None
        return
    seconds = duration_seconds(ours)
    if seconds < 0:
        assert of_go == FOREVER
    elif seconds < FOREVER / SECOND / 2:
        assert of_go == pytest.approx(seconds * SECOND, abs=1)
        assert (of_go == 0) == (seconds == 0)
    else:
        assert of_go != 0


def check(path: str, ours: dict[str, Any], of_go: dict[str, Any]) -> None:
    """Fails unless both have read the same."""
    model = ours.get("model")
    if path == "/api/show" and not model:
        model = ours.get("name")
    assert alike(model or "") == alike(of_go["model"])
    if path == "/api/show":
        return
    stream = ours.get("stream") if "embed" not in path else None
    assert (stream if stream is not None or path.startswith("/api/") else False) == (of_go["stream"] or False) or (
        stream is None and of_go["stream"] is None
    )
    row = ENDPOINTS[path]
    if row.has_options or row.has_keep_alive:
        check_keep_alive(ours.get("keep_alive"), of_go["keep_alive"])
    if row.has_options:
        assert alike(ours.get("options") or {}) == alike(of_go["options"] or {})
    content = ours.get(row.content)
    assert (content in (None, "", [])) == of_go["is_empty"]
    if row.content == "messages":
        told = [{folded(name): value for name, value in (one or {}).items()}.get("content") for one in content or []]
        assert [alike(one or "") for one in told] == [alike(one or "") for one in of_go["contents"]]


@settings(SAME_EVERY_TIME, max_examples=300)
@given(call=calls())
@example(call=("/api/generate", b'{"model":"forbidden","Model":null,"prompt":"x"}'))
@example(call=("/api/generate", b'{"model":"m","prompt":"x","Prompt":null,"keep_alive":0}'))
@example(call=("/api/generate", '{"model":"m","prompt":"x","option\u017f":{"num_predict":9}}'.encode()))
@example(call=("/api/generate", b'{"model":"m","prompt":"x","options":{"num_predict":9},"Options":{}}'))
@example(call=("/api/generate", b'{"model":"m","prompt":"x","options":{"num_predict":9,"num_predict":10}}'))
@example(call=("/api/chat", b'{"model":"m","messages":[{"role":"user","content":"x","Content":"y"}]}'))
@example(call=("/api/generate", b'{"model":"forbidden","prompt":"x"} x'))
def test_what_is_taken_is_read_as_go_reads_it(go: GoDecoder, call: tuple[str, bytes]) -> None:
    path, body = call
    try:
        ours = read_call(body)
    except InvalidRequestError:
        return
    of_go = go.read(path, body)
    if not of_go.get("error"):
        check(path, ours, of_go)


def test_enough_of_what_is_tried_is_understood_by_both(go: GoDecoder) -> None:
    understood = 0

    @settings(max_examples=300, phases=(Phase.generate,), derandomize=True, database=None)
    @given(call=calls())
    def count(call: tuple[str, bytes]) -> None:
        nonlocal understood
        try:
            ours = read_call(call[1])
        except InvalidRequestError:
            return
        understood += bool(ours) and not go.read(*call).get("error")

    count()
    assert understood > 20
