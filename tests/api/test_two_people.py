"""Two people with keys, one after the other: through no route does the second find anything of the first."""

from __future__ import annotations

import time
from typing import Any

from tests.support.access import bearer, finished, made_key, service_with_keys, token_of
from tests.support.raw_client import Client, header_lines, in_parallel, request_of
from tests.support.running import RunningService
from tests.support.walking import AWAY_FROM_THE_CLOUD, routes_of

WORDS = "the first one's own words"
NAME = "key-of-the-first-one"
PERSON = "person-of-the-first-one"
BODIES = (
    b"",
    b"{}",
    b'{"model": "llama3.2", "prompt": "x", "messages": [], "stream": false, "input": "x", "max_tokens": 1}',
)


async def left_behind(service: RunningService, headers: dict[str, str]) -> dict[str, str]:
    """What the first one asks for and leaves: jobs of every state, replies that are kept, a request in the log."""
    job_id = await finished(service, headers)
    _, made = await service.call(
        "POST", "/api/v1/prompt", {"prompt": WORDS, "model": "llama3.2"}, headers=headers | {"Idempotency-Key": "mine"}
    )
    await service.until(made["id"], "completed", headers=headers)
    later = {"prompt": WORDS, "not_before": time.time() + 86_400}
    _, waiting = await service.call("POST", "/api/v1/prompt", later, headers=headers)
    chat = {"model": "llama3.2", "messages": [{"role": "user", "content": WORDS}], "stream": False}
    assert (await service.call("POST", "/api/chat", chat, headers=headers))[0] == 200
    _, requests = await service.call("GET", "/requests", headers=headers)
    return {
        "job": job_id, "finished": made["id"], "waiting": waiting["id"],
        "number": str(requests["requests"][0]["request_id"]),
    }  # fmt: skip


async def found(
    service: RunningService, headers: dict[str, str], left: dict[str, str], secrets: list[str]
) -> list[str]:
    """Where the second one finds something of the first."""
    there: list[str] = []
    sent: list[tuple[str, str, bytes]] = []
    for job_id in (left["finished"], left["waiting"]):
        known: dict[str, Any] = {"id": job_id, "request_id": left["number"]}
        for route in routes_of(service, **known):
            bodies = BODIES if route.method in ("POST", "PUT") else BODIES[:1]
            sent += [(route.method, route.path, body) for body in bodies]
            if route.method == "GET":
                sent.append(
                    (route.method, f"{route.path}?q=first&before={job_id}&owner={left['owner']}&page_size=100", b"")
                )

    async def send(client: Client, one: tuple[str, str, bytes]) -> None:
        method, path, body = one
        answer = await client.exchange(request_of(method, path, body, *header_lines(headers)), method)
        assert answer is not None
        text = answer.body.decode("utf-8", "replace") + str(answer.headers)
        # What was asked for by its name may be repeated to who has named it.
        told = [secret for secret in secrets if secret in text and secret not in path]
        there.extend(f"{method} {path} tells {secret}" for secret in told)

    await in_parallel(service.port, send, dict.fromkeys(sent))
    return there


async def test_the_second_finds_nothing_of_the_first_through_any_route() -> None:
    async with service_with_keys(faults=AWAY_FROM_THE_CLOUD) as service:
        first = await made_key(service, name=NAME, owner_header="X-Person")
        own = bearer(first["key"]) | {"X-Person": PERSON}
        left = await left_behind(service, own)
        left["owner"] = f"key:{first['id']}/{PERSON}"
        secrets = [WORDS, NAME, PERSON, first["id"], first["key"], left["finished"], left["waiting"], left["job"]]
        second = bearer((await made_key(service, name="second"))["key"])
        third = bearer(first["key"]) | {"X-Person": "another person"}
        for headers, hidden in (
            (second, secrets),
            # The same key, and another person behind it.
            (third, [WORDS, PERSON, left["finished"], left["waiting"], left["job"]]),
            (bearer(await token_of(service, third)), [WORDS, PERSON, left["finished"], left["waiting"], left["job"]]),
        ):
            assert await found(service, headers, left, hidden) == []
        # Nor has any of them changed anything.
        for job_id, status in ((left["finished"], "completed"), (left["waiting"], "queued")):
            _, job = await service.call("GET", f"/api/v1/prompt/{job_id}/status", headers=own)
            assert (job["status"], job["prompt"]) == (status, WORDS)
        # There is something to be found: its owner finds it.
        assert len(await found(service, own, left | {"waiting": left["finished"]}, [WORDS])) > 5
