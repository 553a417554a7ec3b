"""What each caller may see of jobs, and whose they are."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support.access import (
    ADMIN,
    Route,
    bearer,
    finished,
    headers_of,
    made_key,
    owner_of,
    service_with_keys,
    status_of,
    token_of,
    two_users,
)
from tests.support.raw_client import Client, header_lines, request_of
from tests.support.running import PATIENCE_SECONDS

# Jobs


async def test_a_job_is_there_for_its_key_and_for_admins_only() -> None:
    async with two_users() as (service, own, other, job_id):
        _, requests = await service.call("GET", "/requests", headers=own)
        seq = requests["requests"][0]["request_id"]
        routes = [
            Route("GET", f"/api/v1/prompt/{job_id}/status"),
            Route("GET", f"/api/v1/prompt/{job_id}/result"),
            Route("GET", f"/api/v1/prompt/{job_id}/request"),
            Route("GET", f"/api/v1/prompt/{job_id}/stream"),
            Route("GET", f"/status/{seq}"),
            Route("DELETE", f"/api/v1/prompt/{job_id}"),
        ]
        for route in routes:
            assert await status_of(service, route, own) == 200
            assert await status_of(service, route, ADMIN) == 200
            assert await status_of(service, route, other) == 404


async def test_another_ones_job_looks_as_if_it_were_not_there() -> None:
    async with two_users() as (service, _, other, job_id):
        nothing = job_id[:-4] + ("0000" if job_id[-4:] != "0000" else "1111")
        for path in ("status", "result", "request"):
            _, theirs = await service.call("GET", f"/api/v1/prompt/{job_id}/{path}", headers=other)
            _, none = await service.call("GET", f"/api/v1/prompt/{nothing}/{path}", headers=other)
            assert json.dumps(theirs).replace(job_id, "") == json.dumps(none).replace(nothing, "")


async def test_nobody_cancels_the_job_of_another() -> None:
    async with service_with_keys() as service:
        own, other = await headers_of(service), await headers_of(service)
        service.stall()
        _, answer = await service.call("POST", "/api/v1/prompt", {"prompt": "Hello"}, headers=own)
        path = f"/api/v1/prompt/{answer['id']}"
        assert (await service.call("DELETE", path, headers=other))[0] == 404
        status, left = await service.call("GET", f"{path}/status", headers=own)
        assert (status, left["status"] in ("queued", "processing")) == (200, True)
        assert (await service.call("DELETE", path, headers=own))[1]["status"] == "cancelled"


async def test_lists_hold_what_their_reader_may_see() -> None:
    async with two_users() as (service, own, other, job_id):
        theirs = await finished(service, other)
        for headers, expected in ((own, [job_id]), (other, [theirs]), (ADMIN, [theirs, job_id])):
            _, prompts = await service.call("GET", "/api/v1/prompts", headers=headers)
            assert ([prompt["id"] for prompt in prompts["prompts"]], prompts["total"]) == (expected, len(expected))
            for query in ({}, {"status": "completed"}):
                _, requests = await service.call("GET", "/requests", params=query, headers=headers)
                assert (len(requests["requests"]), requests["total"]) == (len(expected), len(expected))
        _, found = await service.call("GET", "/api/v1/prompts", params={"q": "hello"}, headers=other)
        assert [prompt["id"] for prompt in found["prompts"]] == [theirs]


async def test_without_required_keys_everybody_sees_everything() -> None:
    async with service_with_keys(required=False) as service:
        user = await headers_of(service)
        job_id = await finished(service, user)
        for headers in ({}, user, bearer("sk-unknown")):
            assert await status_of(service, Route("GET", f"/api/v1/prompt/{job_id}/result"), headers) == 200
            _, prompts = await service.call("GET", "/api/v1/prompts", headers=headers)
            assert prompts["total"] == 1


# People behind one key


async def test_people_behind_one_key_are_owners_of_their_own() -> None:
    async with service_with_keys() as service:
        made = await made_key(service, owner_header="X-OpenWebUI-User-Id")
        shared = bearer(made["key"])
        anna, ben = shared | {"X-OpenWebUI-User-Id": "anna"}, shared | {"x-openwebui-user-id": "ben"}
        assert await owner_of(service, anna) == f"key:{made['id']}/anna"
        assert await owner_of(service, ben) == f"key:{made['id']}/ben"
        assert await owner_of(service, shared) == f"key:{made['id']}"
        longest = shared | {"X-OpenWebUI-User-Id": "x" * 128}
        assert await owner_of(service, longest) == f"key:{made['id']}/{'x' * 128}"
        for headers, total in ((anna, 1), (ben, 1), (shared, 4)):
            _, prompts = await service.call("GET", "/api/v1/prompts", headers=headers)
            assert prompts["total"] == total
        other = await made_key(service)
        assert await owner_of(service, bearer(other["key"]) | {"X-OpenWebUI-User-Id": "anna"}) == f"key:{other['id']}"


async def test_a_name_too_long_to_tell_people_apart_is_refused() -> None:
    async with service_with_keys() as service:
        shared = bearer((await made_key(service, owner_header="X-User"))["key"]) | {"X-User": "x" * 129}
        for path, body in (("/api/v1/prompt", {"prompt": "Hello"}), ("/api/chat", {"model": "llama3.2"})):
            status, answer = await service.call("POST", path, body, headers=shared)
            assert (status, answer["error"]) == (400, "X-User: may have 128 characters (got 129)")


async def test_no_two_names_become_one_and_a_blank_one_is_not_the_front_end() -> None:
    async with service_with_keys() as service:
        made = await made_key(service, owner_header="X-User")

        async def asked(method: str, path: str, *names: bytes) -> tuple[int, dict[str, Any]]:
            client, body = Client(service.port), b'{"prompt": "Hello"}' if method == "POST" else b""
            head = *header_lines(bearer(made["key"])), *(b"X-User: " + name for name in names)
            answer = await client.exchange(request_of(method, path, body, *head), method)
            client.close()
            assert answer is not None
            return answer.status, json.loads(answer.body)

        for name, person, seen in (
            (b"J\xf6rg", "/J\xf6rg", 1), (b"J\xe4rg", "/J\xe4rg", 1), (b"", "", 1), ("\u2003".encode(), "", 2),
        ):  # fmt: skip
            _, job = await asked("POST", "/api/v1/prompt", name)
            assert (await service.jobs.views.view(job["id"])).job.owner == f"key:{made['id']}{person}"
            assert (await asked("GET", "/api/v1/prompts", name))[1]["total"] == seen
        status, refusal = await asked("POST", "/api/v1/prompt", b"anna", b"ben")
        assert (status, refusal["error"]) == (400, "X-User: occurs 2 times; send it once")


async def test_a_token_is_the_persons_for_whom_it_was_bought_whatever_its_header_says() -> None:
    async with service_with_keys() as service:
        shared = bearer((await made_key(service, owner_header="X-User"))["key"])
        anna, ben = shared | {"X-User": "anna"}, shared | {"X-User": "ben"}
        jobs = {await finished(service, headers): headers for headers in (anna, ben)}
        token = bearer(await token_of(service, anna)) | {"X-User": "ben"}
        assert (await owner_of(service, token)).endswith("/anna")
        for job_id, headers in jobs.items():
            seen = await status_of(service, Route("GET", f"/api/v1/prompt/{job_id}/result"), token)
            assert seen == (200 if headers is anna else 404)
        assert (await service.call("GET", "/api/v1/prompts", headers=token))[1]["total"] == 2


async def test_a_token_that_names_no_person_sees_only_jobs_that_name_none() -> None:
    async with service_with_keys() as service:
        shared = bearer((await made_key(service, owner_header="X-User"))["key"])
        of_anna, of_nobody = await finished(service, shared | {"X-User": "anna"}), await finished(service, shared)
        token = bearer(await token_of(service, shared))
        for headers, seen in ((token, [of_nobody]), (shared, [of_nobody, of_anna])):
            _, prompts = await service.call("GET", "/api/v1/prompts", headers=headers)
            assert [prompt["id"] for prompt in prompts["prompts"]] == seen
        named = token | {"X-User": "anna"}
        for headers in (token, named):
            assert await status_of(service, Route("GET", f"/api/v1/prompt/{of_anna}/result"), headers) == 404
            assert await status_of(service, Route("DELETE", f"/api/v1/prompt/{of_anna}"), headers) == 404


async def test_the_statistics_of_a_person_are_that_persons() -> None:
    async with service_with_keys() as service:
        shared = bearer((await made_key(service, owner_header="X-User"))["key"])
        anna, ben = shared | {"X-User": "anna"}, shared | {"X-User": "ben"}
        for headers in (anna, anna, ben, shared):
            await finished(service, headers)
        tokens = [bearer(await token_of(service, headers)) for headers in (anna, shared)]
        for headers, requests in ((anna, 2), (ben, 1), (shared, 4), (tokens[0], 2), (tokens[1], 1), (ADMIN, 4)):
            _, stats = await service.call("GET", "/api/stats", headers=headers)
            assert stats["totals"]["requests"] == requests


async def test_a_user_name_that_is_no_text_makes_an_owner_all_the_same() -> None:
    async with service_with_keys() as service:
        made = await made_key(service, owner_header="X-User")
        reader, writer = await asyncio.open_connection(*service.runner.addresses[0][:2])
        body = b'{"prompt": "Hello"}'
        writer.write(
            b"POST /api/v1/prompt HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-User: \xff\xfe\r\n"
            + f"Authorization: Bearer {made['key']}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 202")
