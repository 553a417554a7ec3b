"""What real clients get of ``/api/chat`` without ``stream``, each with the headers that it sends by itself."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Any

import ollama
import pytest
import requests

from service.api.http.operation import JSON, NDJSON
from tests.support.client_service import QUESTION, service_for_clients

CHAT = {"model": "llama3.2", "messages": QUESTION}
FETCH = """
const [url, headers, body] = JSON.parse(process.argv[1]);
const reply = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
console.log(await reply.text());
"""


async def output_of(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0
    return said


async def by_curl(url: str, headers: dict[str, str], body: dict[str, Any]) -> str:
    options = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    return await output_of("curl", "-s", f"{url}/api/chat", *options, "-d", json.dumps(body))


async def by_requests(url: str, headers: dict[str, str], body: dict[str, Any]) -> str:
    return (await asyncio.to_thread(requests.post, f"{url}/api/chat", json=body, headers=headers, timeout=60)).text


async def by_fetch(url: str, headers: dict[str, str], body: dict[str, Any]) -> str:
    argument = json.dumps([f"{url}/api/chat", headers, body])
    return await output_of("node", "--input-type=module", "-e", FETCH, argument)


@pytest.mark.parametrize("client", [by_curl, by_requests, by_fetch])
async def test_a_plain_call_gets_ollamas_stream_and_one_with_a_key_or_for_json_one_object(client: Any) -> None:
    program = {by_curl: "curl", by_fetch: "node"}.get(client)
    if program is not None and shutil.which(program) is None:
        pytest.skip(f"no {program} here: what it sends cannot be tried")
    async with service_for_clients() as service:
        for headers, fields, is_streamed in (
            ({}, {}, True),
            ({"Authorization": "Bearer of-anybody"}, {}, False),
            ({"X-API-Key": "of-anybody"}, {}, False),
            ({"Accept": JSON}, {}, False),
            ({"Accept": NDJSON, "X-API-Key": "of-anybody"}, {}, True),
            ({}, {"temperature": 0.7, "max_tokens": 5}, False),
        ):
            lines = (await client(service.url, headers, {**CHAT, **fields})).strip().splitlines()
            assert (len(lines) > 1) == is_streamed, (headers, fields)
            last = json.loads(lines[-1])
            assert last["done"] is True
            assert last["eval_count"] == (5 if fields else 20)


async def test_ollamas_own_client_says_what_it_wants() -> None:
    async with service_for_clients() as service, ollama.AsyncClient(service.url) as client:
        whole = await client.chat("llama3.2", QUESTION)
        parts = [part async for part in await client.chat("llama3.2", QUESTION, stream=True)]
        assert whole.message.content == "".join(part.message.content or "" for part in parts)
        assert len(parts) > 1
