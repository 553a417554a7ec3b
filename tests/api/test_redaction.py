"""What opens something stands in no log and in no error, however the address is written; and nobody writes lines."""

from __future__ import annotations

import logging

import pytest

from service.api.http.redaction import redacted
from service.cli.logs import LineFormatter
from tests.support.access import ADMIN, service_with_keys
from tests.support.raw_client import Client, header_lines, request_head
from tests.support.walking import AWAY_FROM_THE_CLOUD

SECRET = "aaa.bbb.ccc"
QUERIES = [
    "?token={}",
    "?%74oken={}",
    "?t%6Fken={}&x=1",
    "?x=1;token={}",
    ";token={}",
    "?TOKEN={}",
    "?Token={}",
    "?+token={}",
    "?%20token%20={}",
    "?a=b?token={}",
    "?a=&token={}&token={}",
    "?access_token={}",
    "?api%5Fkey={}",
    "?key={}",
    "?X-API-Key={}",
    "%3ftoken={}",
    "?a=%26token%3D{}",
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_secret_is_left_out_of_an_address_and_all_else_stays(query: str) -> None:
    filled = query.replace("{}", SECRET)
    assert redacted(f"/api/v1/ws{filled}") == f"/api/v1/ws{query.replace('{}', '…')}"


@pytest.mark.parametrize("address", ["/", "/a?b", "/a?page=1&q=token", "/a?tokens=5;x=token", "/token/key?monkey=1"])
def test_an_address_without_a_secret_stays_as_it_is(address: str) -> None:
    assert redacted(address) == address


async def test_no_log_and_no_error_holds_a_token_and_nobody_writes_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "service")
    async with service_with_keys(access_log=True, faults=AWAY_FROM_THE_CLOUD) as service:
        client = Client(service.port)
        queries = [query.replace("{}", SECRET) for query in QUERIES]
        paths = [
            *(f"/api/v1/prompt/1/stream{query}" for query in queries),
            *(f"/nothing{query}" for query in queries),
            *(f"/nothing{query}".replace("?", "%3f").replace(";", "%3b") for query in queries),
            *(f"/api/v1/ws{query}" for query in queries),
            *(f"/api/later{query}" for query in queries),
            "/a%0d%0aINFO%20fake%1b%5b2J",
            "/api/%e2%80%aelater%c2%9b",
        ]
        lines = header_lines(ADMIN)
        for path in paths:
            agent = "User-Agent: \x9b2J \u202e".encode()
            answer = await client.exchange(request_head("GET", path, agent, *lines) + b"\r\n\r\n", "GET")
            assert answer is not None
            assert b"bbb" not in answer.body
        client.close()
        for text in ("x\n2026 INFO fake", "\x1b[2J", "\u202egpj"):
            await service.call("DELETE", "/api/delete", {"model": text}, headers=ADMIN)
            await service.call("POST", "/api/v1/prompt", {"prompt": "x", "model": text}, headers=ADMIN)
            await service.call("POST", "/api/keys", {"name": text}, headers=ADMIN)
    said = [LineFormatter().format(record) for record in caplog.records if record.name.startswith("service")]
    assert len([line for line in said if "service.access" in line]) >= len(paths)
    assert [line for line in said if "bbb" in line] == []
    assert [line for line in said if not line.isprintable()] == []
