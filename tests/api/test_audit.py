"""Who did what: what admins do, what the command line does, and who has tried keys that open nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from service.app import RELOADING
from tests.support.access import ADMIN, bearer, headers_of, let_pass, made_key, service_with_keys, token_of
from tests.support.command_line import ran
from tests.support.running import PATIENCE_SECONDS, RunningService

PROXIED = {"X-Forwarded-For": "198.51.100.7"}


async def entries(service: RunningService, **query: str) -> list[dict[str, Any]]:
    status, page = await service.call("GET", "/api/audit", params=query, headers=ADMIN)
    assert status == 200, page
    return list(page["entries"])


async def test_what_an_admin_does_is_written_down_and_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="service.audit")
    async with service_with_keys({"server.trusted_proxies": ["127.0.0.1"]}) as service:
        boss = await headers_of(service, name="boss", role="admin", owner_header="X-User")
        boss |= {"X-User": "anna\x9b2J", **PROXIED}
        _, made = await service.call("POST", "/api/keys", {"name": "x\nINFO fake"}, headers=boss)
        for method, path in (
            ("DELETE", f"/api/keys/{made['id']}?keep_jobs=true"),
            ("POST", "/api/v1/backends/simulated/drain"),
            ("POST", "/api/v1/backends/simulated/resume"),
        ):
            assert (await service.call(method, path, headers=boss))[0] == 200
        auth = service.config.auth.model_copy(update={"secret_key": "hunter2"})
        service.app[RELOADING].apply(service.config.model_copy(update={"auth": auth}))
        service.app[RELOADING].refuse()
        found = await entries(service)
        assert [(one["action"], one["subject"] and one["subject"]["id"], one["details"]) for one in found[:6]] == [
            ("reload_failed", None, {}),
            ("reloaded", None, {"changed": [], "waiting": ["auth.secret_key"]}),
            ("backend_resumed", "simulated", {}),
            ("backend_drained", "simulated", {}),
            ("key_revoked", made["id"], {"keep_jobs": True}),
            ("key_created", made["id"], {"role": "user"}),
        ]
        [by] = {tuple(one["actor"].items()) for one in found[2:6]}
        assert dict(by) | {"key_id": ""} == {
            "kind": "key", "key_id": "", "key_name": "boss", "person": "anna\x9b2J", "address": "198.51.100.7",
        }  # fmt: skip
        assert {one["actor"]["kind"] for one in found[:2]} == {"signal"}
        assert [one["subject"]["name"] for one in found[-2:]] == ["boss", "demo admin"]
        kept = [one for one in found if one["subject"] and one["subject"]["id"] == made["id"]]
        assert await entries(service, key_id=made["id"]) == kept
        assert [one["action"] for one in await entries(service, action="reloaded")] == ["reloaded"]
        secrets = (boss["Authorization"], ADMIN["Authorization"], made["key"], "hunter2")
        assert not [text for text in secrets if text.removeprefix("Bearer ") in str(found) + caplog.text]
    who = f"key {dict(by)['key_id']} 'boss' for 'anna\\x9b2J' from 198.51.100.7: {made['id']} 'x\\nINFO fake'"
    assert [record.getMessage() for record in caplog.records[2:4]] == [
        f"key_created by {who} {{'role': 'user'}}",
        f"key_revoked by {who} {{'keep_jobs': True}}",
    ]
    assert len([record for record in caplog.records if record.name == "service.audit"]) == len(found)


async def test_a_purge_is_written_down_without_what_was_searched_for() -> None:
    async with service_with_keys() as service:
        user = await headers_of(service, name="anna")
        _, one = await service.call("POST", "/api/v1/prompt", {"prompt": "Hello"}, headers=user)
        for _ in range(2):
            await service.call("POST", "/api/v1/prompt", {"prompt": "the marked word"}, headers=user)
        status, _ = await service.call("DELETE", f"/api/v1/prompt/{one['id']}?purge=true", headers=user)
        assert status == 200
        await service.call("DELETE", f"/api/v1/prompt/{one['id']}?purge=true", headers=user)
        for _ in range(2):
            body = {"filter": {"q": "marked", "to": "2100-01-01T00:00:00Z"}}
            assert (await service.call("POST", "/api/v1/prompts/purge", body, headers=user))[0] == 200
        found = await entries(service, action="purged")
        assert [(entry["subject"] and entry["subject"]["id"], entry["details"]) for entry in found] == [
            (None, {"jobs": 2, "filter": {"q": "…", "to": "2100-01-01T00:00:00.000+00:00"}, "everybody": False}),
            (one["id"], {}),
        ]
        assert {entry["actor"]["key_name"] for entry in found} == {"anna"}


async def test_pages_go_on_behind_the_last_entry_whatever_comes_meanwhile() -> None:
    async with service_with_keys() as service:
        for number in range(5):
            await made_key(service, name=f"k{number}")
        _, first = await service.call("GET", "/api/audit?page_size=4", headers=ADMIN)
        assert (len(first["entries"]), first["total"], first["total_pages"]) == (4, 6, 2)
        await made_key(service, name="meanwhile")
        _, rest = await service.call("GET", f"/api/audit?page_size=4&before={first['next']}", headers=ADMIN)
        assert [one["subject"]["name"] for one in rest["entries"]] == ["k0", "demo admin"]
        assert (rest["total"], rest["next"]) == (2, None)
        assert await entries(service, since=first["entries"][0]["at"], until=first["entries"][0]["at"]) == []


async def test_only_admins_read_it() -> None:
    async with service_with_keys(required=False) as service:
        for headers, status in (({}, 401), (await headers_of(service), 403), (ADMIN, 200)):
            assert (await service.call("GET", "/api/audit", headers=headers))[0] == status


async def test_failed_sign_ins_are_written_down_where_keys_are_required() -> None:
    async with service_with_keys({"server.trusted_proxies": ["127.0.0.1"]}) as service:
        revoked = await made_key(service, name="old")
        expired = await made_key(service, name="short", expires=4_000_000_000)
        token = bearer(await token_of(service, bearer(revoked["key"])))
        await service.call("DELETE", f"/api/keys/{revoked['id']}", headers=ADMIN)
        shown = [bearer("sk-guess"), bearer("sk-guess2"), {"x-api-key": "sk-guess3"}, bearer(revoked["key"]), token]
        for headers in shown:
            assert (await service.call("GET", "/api/stats", headers=headers | PROXIED))[0] == 401
        # Who shows nothing has not tried to sign in.
        assert (await service.call("GET", "/api/stats"))[0] == 401
        found = await entries(service, action="sign_in_failed")
        said = sorted((one["details"]["reason"], one["times"], one["actor"]["key_name"]) for one in found)
        assert said == [("revoked", 2, "old"), ("unknown", 3, None)]
        assert {one["actor"]["address"] for one in found} == {"198.51.100.7"}
        assert "guess" not in str(found)
        let_pass(service, 4_000_000_000_000 - service.app[RELOADING]._clock.now_ms())
        assert (await service.call("GET", "/api/stats", headers=bearer(expired["key"])))[0] == 401
        async with service.session.ws_connect("/api/v1/ws") as websocket:
            await websocket.send_json({"type": "auth", "token": "a.b.c"})
            assert (await websocket.receive_json(timeout=PATIENCE_SECONDS))["type"] == "error"
        found = await entries(service, action="sign_in_failed", since="2090-01-01")
        assert sorted((one["details"]["reason"], one["actor"]["key_name"]) for one in found) == [
            ("expired", "short"),
            ("unknown", None),
        ]


async def test_on_an_open_instance_any_key_is_shown_and_none_has_failed() -> None:
    async with service_with_keys(required=False) as service:
        assert (await service.call("GET", "/api/stats", headers=bearer("ollama")))[0] == 200
        assert await entries(service, action="sign_in_failed") == []


async def test_what_the_command_line_does_while_no_service_runs_is_written_down_too(tmp_path: Path) -> None:
    here = {"OLLAMA_PROXY_DB": str(tmp_path / "queue.db")}
    [text] = (await ran("keys", "create", "--name", "made", environ=here)).lines
    key_id = (await ran("keys", "list", environ=here)).lines[-1].split()[0]
    assert (await ran("keys", "revoke", key_id, environ=here)).status == 0
    async with service_with_keys(folder=tmp_path) as service:
        found = await entries(service)
        assert [(one["action"], one["actor"]["kind"], one["subject"]["name"]) for one in found] == [
            ("key_created", "start", "demo admin"),
            ("key_revoked", "command line", "made"),
            ("key_created", "command line", "made"),
        ]
        assert text not in str(found)
