"""Every header that the service reads, with thirty values that nobody should send: no error of ours, and a connection
on which the next request is answered as ever.
"""

from __future__ import annotations

import logging
import re
from typing import NamedTuple

import pytest
from aiohttp import hdrs

from tests.support.access import ADMIN, finished, made_key, service_with_keys
from tests.support.checkout import ROOT
from tests.support.garbage import is_fault_of_ours
from tests.support.raw_client import Client, header_lines, in_parallel, request_head

VALUES = (
    b"", b" ", b"\t\t", b"x" * 7_000, b"\xff\xfe", "ü😀".encode(), b"null", b"[]", b'{"a":', b'"', b"'", b"," * 200,
    b";;q=", b"0", b"-1", b"nan", b"1e309", b"9" * 25, b"../../etc/passwd", b"%00%0d%0a", b"${jndi:x}",
    b"'; DROP TABLE jobs; --", b"<script>", b"*/*;q=nan", b"a=b; a=b", b"Bearer a.b.c", b"Basic Og==", b"for=\"[::",
    b"\xe2\x80\xae\xc2\x9b2J", b"a, b, c",
)  # fmt: skip


class Place(NamedTuple):
    """Where a header is read."""

    method: str
    path: str
    body: bytes = b""


GET = Place("GET", "/api/stats")
STREAM = Place("GET", "/stream")
SOCKET = Place("GET", "/api/v1/ws")
FILE = Place("GET", "/static/list.js")
CALL = Place("POST", "/api/chat", b'{"model": "llama3.2", "messages": [], "stream": false}')
SUBMIT = Place("POST", "/api/v1/prompt", b'{"model": "nobody", "prompt": "x"}')
PREFLIGHT = Place("OPTIONS", "/api/chat")
UPGRADE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
WHERE = {
    "Accept": (CALL, FILE),
    "Accept-Encoding": (FILE,),
    "Access-Control-Request-Headers": (PREFLIGHT,),
    "Access-Control-Request-Method": (PREFLIGHT,),
    "Access-Control-Request-Private-Network": (PREFLIGHT,),
    "Authorization": (GET, SOCKET),
    "Connection": (GET, SOCKET),
    "Content-Encoding": (SUBMIT,),
    "Content-Length": (SUBMIT,),
    "Content-Type": (CALL, SUBMIT),
    "Cookie": (GET,),
    "Expect": (SUBMIT,),
    "Forwarded": (GET,),
    "Host": (GET,),
    "Idempotency-Key": (CALL, SUBMIT),
    "If-Modified-Since": (FILE,),
    "If-None-Match": (FILE,),
    "If-Range": (FILE,),
    "Last-Event-ID": (STREAM,),
    "Origin": (GET, PREFLIGHT),
    "Range": (FILE,),
    "Referer": (GET,),
    "Sec-WebSocket-Extensions": (SOCKET,),
    "Sec-WebSocket-Key": (SOCKET,),
    "Sec-WebSocket-Protocol": (SOCKET,),
    "Sec-WebSocket-Version": (SOCKET,),
    "Transfer-Encoding": (SUBMIT,),
    "Upgrade": (GET, SOCKET),
    "User-Agent": (CALL,),
    "Vary": (GET,),
    "X-Api-Key": (GET,),
    "X-Backend": (CALL, SUBMIT),
    "X-Forwarded-For": (GET,),
    "X-Forwarded-Host": (GET,),
    "X-Forwarded-Proto": (GET,),
    "X-Job-Deadline-Seconds": (CALL,),
    "X-On-Disconnect": (CALL,),
    "X-Person": (GET,),
    "X-Priority": (CALL,),
    "X-Request-ID": (GET,),
}
"""The headers that are read, by us or on the way to us, and where."""
FRAMING = {"Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "Expect"}
"""With these more may be announced than comes, so that there may be no answer."""
READ = re.compile(
    r'headers(?:\.get|\.getall)?[(\[]\s*(?:"([\w-]+)"|hdrs\.([A-Z_]+))|istr\("([\w-]+)"\)|header_in\(\w+, "([\w-]+)"\)'
)


def test_every_header_that_is_read_stands_in_the_table() -> None:
    found = set()
    for path in (ROOT / "service" / "api").rglob("*.py"):
        for literal, constant, *others in READ.findall(path.read_text(encoding="utf-8")):
            found |= {literal or (str(getattr(hdrs, constant)) if constant else ""), *others}
    ours = {"", "Retry-After", "Server", "WWW-Authenticate", "X-Estimated-Start-Seconds", "X-Queue-Position"}
    answered = {name for name in found if name.startswith("Access-Control-") and "Request" not in name}
    assert len(VALUES) == len(set(VALUES)) == 30
    assert {name.lower() for name in found - ours - answered} <= {name.lower() for name in WHERE}
    assert len(found & set(WHERE)) > 12


async def test_no_value_of_any_header_is_an_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    wrong: list[str] = []
    async with service_with_keys({"server.trusted_proxies": ["127.0.0.1"]}) as service:
        shared = (await made_key(service, owner_header="X-Person"))["key"]
        path = f"/api/v1/prompt/{await finished(service, ADMIN)}/stream"
        key = f"Authorization: Bearer {shared}".encode()
        admin = header_lines(ADMIN)[0]

        async def send(client: Client, one: tuple[str, Place, bytes]) -> None:
            name, place, value = one
            lines = [admin if place == STREAM else key, b"Content-Length: %d" % len(place.body)]
            if place == SOCKET:
                lines += UPGRADE
            lines = [line for line in lines if not line.lower().startswith(name.lower().encode() + b":")]
            asked = path if place == STREAM else place.path
            head = request_head(place.method, asked, *lines, name.encode() + b": " + value)
            if name == "Host":
                head = head.replace(b"Host: localhost\r\n", b"")
            is_cut = name in FRAMING
            answer = await client.exchange(head + b"\r\n\r\n" + place.body, place.method, is_cut=is_cut)
            if answer is None and not is_cut:
                wrong.append(f"{name}: {value[:40]!r} at {asked}: no answer")
            elif answer is not None and is_fault_of_ours(answer):
                wrong.append(f"{name}: {value[:40]!r} at {asked}: {answer.status} {answer.body[:200]!r}")
            if answer is None or answer.status == 101:
                client.close()
            if value == VALUES[-1] or is_cut:
                health = await client.exchange(request_head("GET", "/health") + b"\r\n\r\n", "GET")
                if health is None or b'"corral"' not in health.body:
                    wrong.append(f"{name}: {value[:40]!r} at {asked}: the next request is not answered: {health}")

        every = [(name, place, value) for name, places in WHERE.items() for place in places for value in VALUES]
        await in_parallel(service.port, send, every)
    assert wrong == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
