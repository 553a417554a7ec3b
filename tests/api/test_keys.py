"""Keys: made, found, revoked; kept as hashes, over restarts and among processes, and managed from the command line."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from service.audit import START
from service.cli.admin_socket import admin_socket_path
from service.clock import Clock
from service.config import DatabaseConfig
from service.errors import ConfigurationError, NotFoundError, UnauthenticatedError
from service.key import Key, NewKey, Role, key_of_owner, owner_of_key
from service.keys.keyring import KEY_PREFIX, Keyring
from service.keys.shapes import KeyRequest
from service.store.database import Database, Statement
from service.store.keys import KeyStore
from tests.support.access import ADMIN, bearer, made_key, service_with_keys
from tests.support.databases import Place
from tests.support.running import PATIENCE_SECONDS, service_in_process

ONE, TWO = "one secret of thirty-two characters", "two secrets of thirty-two characters"
DEMO_TEXT, OTHER_TEXT, SAME_TEXT = "a-demo-key-of-somebody", "another-demo-key-of-somebody", "the-same-demo-key"
EVERYTHING = NewKey(
    name="Wörter 😀",
    role=Role.ADMIN,
    requests_per_hour=10,
    concurrency=2,
    models=("llama3.2", "hf.co/x/y:Q4"),
    max_priority=-1,
    weight=2.5,
    owner_header="X-User",
    expires_at=4_000_000_000_000,
    retention_days=7,
)


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


@pytest.fixture
async def keys(store: KeyStore) -> Keyring:
    return await Keyring.open(store, Clock())


async def test_a_key_is_found_by_its_text_and_only_by_that(keys: Keyring) -> None:
    key, text = await keys.create(EVERYTHING, by=START)
    assert text.startswith(KEY_PREFIX)
    assert len(text) >= len(KEY_PREFIX) + 43
    assert keys.find(text) == key == keys.get(key.id)
    for wrong in (text[:-1], text + "x", text.upper(), "", "\ud800", KEY_PREFIX):
        assert keys.find(wrong) is None


async def test_all_that_a_key_is_outlives_a_restart(store: KeyStore, keys: Keyring) -> None:
    key, text = await keys.create(EVERYTHING, by=START)
    plain, _ = await keys.create(NewKey("plain"), by=START)
    again = await Keyring.open(store, Clock())
    assert again.find(text) == key
    assert sorted(again.listed()) == sorted([key, plain])
    assert key._replace(id="", created_at=0) == (
        "", "Wörter 😀", "admin", 10, 2, ("llama3.2", "hf.co/x/y:Q4"), -1, 2.5, "X-User", 4_000_000_000_000, 7, True,
        False, 0, None,
    )  # fmt: skip


async def test_nothing_that_is_stored_holds_the_key(database: Database, keys: Keyring) -> None:
    _, text = await keys.create(NewKey("secret"), by=START)
    rows = [
        *await database.read("SELECT * FROM keys", {}),
        *await database.read("SELECT * FROM settings", {}),
    ]
    assert text not in str(rows)
    assert text.removeprefix(KEY_PREFIX) not in str(rows)


async def test_two_keys_are_never_alike(keys: Keyring) -> None:
    made = [await keys.create(NewKey("same"), by=START) for _ in range(20)]
    assert len({text for _, text in made}) == len({key.id for key, _ in made}) == 20


async def with_the_id(database: Database, key: Key, key_id: str) -> None:
    """Let a stored key have an id as earlier versions made them."""
    await database.write(Statement("UPDATE keys SET id = :new WHERE id = :id", {"id": key.id, "new": key_id}))


async def test_the_id_of_a_key_is_a_uuid_and_keys_with_an_older_id_go_on(
    database: Database, store: KeyStore, keys: Keyring
) -> None:
    old, text = await keys.create(NewKey("old"), by=START)
    await keys.create(NewKey("new"), by=START)
    for role in Role:
        await keys.keep_demo_key(role, f"the demo key of {role}")
    assert [str(uuid.UUID(one.id)) for one in keys.listed()] == [one.id for one in keys.listed()]
    await with_the_id(database, old, "9f86d081884c")
    again = await Keyring.open(store, Clock())
    assert again.find(text) == old._replace(id="9f86d081884c")
    assert not (await again.revoke("9f86d081884c", keeps_jobs=False, by=START)).is_active


async def test_a_demo_key_of_an_earlier_version_keeps_its_id_and_its_duties(
    database: Database, store: KeyStore
) -> None:
    keys = await Keyring.open(store, Clock(), ONE)
    await keys.keep_demo_key(Role.ADMIN, DEMO_TEXT)
    [key] = keys.listed()
    await with_the_id(database, key, "demo-admin")
    # It stands in the way of no new secret.
    again = await Keyring.open(store, Clock(), TWO)
    await again.keep_demo_key(Role.ADMIN, OTHER_TEXT)
    assert again.listed() == [key._replace(id="demo-admin")]
    assert again.find(DEMO_TEXT) is None
    assert again.find(OTHER_TEXT) == key._replace(id="demo-admin")
    await again.keep_demo_key(Role.ADMIN, "")
    assert not again.has_any


async def test_a_revoked_key_is_known_and_good_for_nothing(keys: Keyring) -> None:
    key, text = await keys.create(NewKey("old"), by=START)
    keys.check(key)
    assert keys.is_good(key)
    revoked = await keys.revoke(key.id, keeps_jobs=False, by=START)
    assert revoked == keys.find(text) == key._replace(is_active=False)
    with pytest.raises(UnauthenticatedError, match="revoked"):
        keys.check(revoked)
    assert not keys.is_good(key)
    assert await keys.revoke(key.id, keeps_jobs=False, by=START) == revoked
    with pytest.raises(NotFoundError):
        await keys.revoke("nobody", keeps_jobs=False, by=START)


async def test_a_key_ends_at_its_time(store: KeyStore) -> None:
    clock = Clock()
    keys = await Keyring.open(store, clock)
    key, _ = await keys.create(NewKey("short", expires_at=clock.now_ms() + 60_000), by=START)
    keys.check(key)
    clock.not_before(clock.now_ms() + 60_000)
    with pytest.raises(UnauthenticatedError, match="expired"):
        keys.check(key)


async def test_the_last_use_is_written_with_the_next_batch(store: KeyStore, keys: Keyring) -> None:
    key, _ = await keys.create(NewKey("used"), by=START)
    other, _ = await keys.create(NewKey("unused"), by=START)
    keys.note_use(key)
    keys.note_use(key)
    shown = next(one.last_used_at for one in keys.listed() if one.id == key.id)
    assert shown is not None
    assert {one.last_used_at for _, one in await store.all()} == {None}
    await keys.write_uses()
    assert {one.id: one.last_used_at for _, one in await store.all()} == {key.id: shown, other.id: None}


async def test_what_one_process_changes_another_learns_with_its_next_look(store: KeyStore, keys: Keyring) -> None:
    other = await Keyring.open(store, Clock())
    told: list[int] = []
    other.changed.connect(lambda: told.append(len(other.listed())))
    key, text = await keys.create(NewKey("shared"), by=START)
    assert other.find(text) is None
    await other.refresh()
    assert other.find(text) == key
    await keys.revoke(key.id, keeps_jobs=False, by=START)
    await other.refresh()
    await other.refresh()
    assert not other.is_good(key)
    assert told == [1, 1]


async def test_a_secret_that_was_made_here_is_used_again(store: KeyStore, keys: Keyring) -> None:
    again = await Keyring.open(store, Clock())
    assert again.derived_secret("a") == keys.derived_secret("a") != keys.derived_secret("b")
    assert len(keys.derived_secret("a")) == 32


@pytest.mark.parametrize(("before", "after"), [(ONE, TWO), ("", TWO), (ONE, "")])
async def test_a_secret_that_does_not_fit_the_keys_stops_the_start(store: KeyStore, before: str, after: str) -> None:
    keys = await Keyring.open(store, Clock(), before)
    key, text = await keys.create(NewKey("kept"), by=START)
    with pytest.raises(ConfigurationError, match=r"^SECRET_KEY .* set it back, or revoke") as refusal:
        await Keyring.open(store, Clock(), after)
    assert "\n" not in str(refusal.value)
    assert (await Keyring.open(store, Clock(), before)).find(text) == key
    await keys.revoke(key.id, keeps_jobs=False, by=START)
    assert (await Keyring.open(store, Clock(), after)).find(text) is None


async def test_a_demo_key_is_there_for_as_long_as_it_is_configured(store: KeyStore) -> None:
    async def begun(text: str) -> Keyring:
        keys = await Keyring.open(store, Clock())
        await keys.keep_demo_key(Role.ADMIN, text)
        return keys

    keys = await begun(DEMO_TEXT)
    key = keys.find(DEMO_TEXT)
    assert key is not None
    assert (key.role, key.is_active) == (Role.ADMIN, True)
    assert (await begun(DEMO_TEXT)).listed() == [key]
    changed = await begun(OTHER_TEXT)
    assert changed.find(DEMO_TEXT) is None
    assert [one.id for one in changed.listed()] == [key.id]
    gone = (await begun("")).find(OTHER_TEXT)
    assert gone is not None
    assert not gone.is_active
    back = (await begun(DEMO_TEXT)).find(DEMO_TEXT)
    assert back is not None
    assert back.is_active


async def test_demo_keys_stand_in_the_way_of_no_new_secret(store: KeyStore) -> None:
    await (await Keyring.open(store, Clock(), ONE)).keep_demo_key(Role.USER, DEMO_TEXT)
    keys = await Keyring.open(store, Clock(), TWO)
    await keys.keep_demo_key(Role.USER, DEMO_TEXT)
    found = keys.find(DEMO_TEXT)
    assert found is not None
    assert found.is_active


async def test_the_demo_keys_must_differ(keys: Keyring) -> None:
    await keys.keep_demo_key(Role.ADMIN, SAME_TEXT)
    with pytest.raises(ConfigurationError, match="must differ"):
        await keys.keep_demo_key(Role.USER, SAME_TEXT)


async def test_an_owner_has_the_weight_of_its_key(keys: Keyring) -> None:
    key, _ = await keys.create(NewKey("heavy", weight=3.0), by=START)
    assert keys.weights.get(owner_of_key(key.id), 1.0) == 3.0
    assert keys.weights.get(owner_of_key(key.id, "anna"), 1.0) == 3.0
    assert keys.weights.get("192.0.2.1", 1.0) == 1.0


def test_an_owner_says_whose_key_it_is() -> None:
    assert key_of_owner(owner_of_key("k1")) == key_of_owner(owner_of_key("k1", "a/b")) == "k1"
    assert key_of_owner("192.0.2.1") is None


@pytest.mark.parametrize("model", ["llama3.2", "LLAMA3.2:latest", "library/llama3.2"])
async def test_an_allowed_model_is_matched_as_ollama_matches_names(keys: Keyring, model: str) -> None:
    key, _ = await keys.create(NewKey("some", models=("llama3.2:LATEST", "mistral")), by=START)
    assert key.may_use(model)
    assert not key.may_use("llama3.2:1b")


# Over HTTP


async def test_an_admin_makes_lists_and_revokes_keys() -> None:
    async with service_with_keys() as service:
        made = await made_key(
            service, name="boss", rate_limit=5, concurrency=1, models=["llama3.2"], max_priority="low", weight=2,
            owner_header="X-User", expires="2099-01-31", retention_days=7,
        )  # fmt: skip
        shown = {name: value for name, value in made.items() if name != "key"}
        assert made["key"].startswith(KEY_PREFIX)
        assert shown == {
            "id": made["id"], "name": "boss", "role": "user", "rate_limit": 5, "concurrency": 1,
            "models": ["llama3.2"], "max_priority": "low", "weight": 2.0, "owner_header": "X-User",
            "retention_days": 7, "expires_at": "2099-01-31T00:00:00.000Z", "is_active": True,
            "created_at": made["created_at"], "last_used_at": None,
        }  # fmt: skip
        _, listed = await service.call("GET", "/api/keys", headers=ADMIN)
        assert shown in listed["keys"]
        assert made["key"] not in str(listed)
        assert await service.call("GET", f"/api/keys/{made['id']}", headers=ADMIN) == (200, shown)
        for _ in range(2):
            status, revoked = await service.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN)
            assert (status, revoked) == (200, {**shown, "is_active": False})
        for method in ("GET", "DELETE"):
            assert (await service.call(method, "/api/keys/nobody", headers=ADMIN))[0] == 404


async def test_revoking_a_key_shows_it_as_it_is_shown_elsewhere() -> None:
    async with service_with_keys() as service:
        made = await made_key(service, weight=1)
        # What is used now is stored with the next batch.
        assert (await service.call("GET", "/api/v1/prompts", headers=bearer(made["key"])))[0] == 200
        revoked, shown = [
            await (await service.session.request(method, f"/api/keys/{made['id']}", headers=ADMIN)).text()
            for method in ("DELETE", "GET")
        ]
        assert revoked == shown
        assert '"weight":1.0' in revoked
        assert '"last_used_at":null' not in revoked


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x", "role": "root"}, "role"),
        ({"name": "x", "rate_limit": 0}, "rate_limit"),
        ({"name": "x", "rate_limit": "5"}, "rate_limit"),
        ({"name": "x", "concurrency": 1.5}, "concurrency"),
        ({"name": "x", "models": "llama3.2"}, "models"),
        ({"name": "x", "models": [""]}, "models"),
        ({"name": "x", "max_priority": "urgent"}, "max_priority"),
        ({"name": "x", "weight": 0}, "weight"),
        ({"name": "x", "owner_header": "a b"}, "owner_header"),
        ({"name": "x", "owner_header": "Authorization"}, "owner_header"),
        ({"name": "x", "expires": "tomorrow"}, "expires"),
        ({"name": "x", "expires": -1}, "expires"),
        ({"name": "x", "colour": "red"}, "colour"),
    ],
)
async def test_what_no_key_can_be_is_refused_with_the_field(fields: dict[str, Any], place: str) -> None:
    async with service_with_keys() as service:
        status, answer = await service.call("POST", "/api/keys", fields, headers=ADMIN)
        assert status == 400
        assert answer["error"].startswith(place)


@pytest.mark.parametrize("expires", ["2099-01-31T12:00:00Z", "2099-01-31T13:00:00+01:00", 4_073_544_000, "4073544000"])
def test_the_end_of_a_key_can_be_said_in_several_ways(expires: Any) -> None:
    assert KeyRequest.model_validate({"name": "x", "expires": expires}).expires == 4_073_544_000_000


# From the command line


async def ran(folder: Path, *arguments: str, **environment: str) -> tuple[int, list[str], str]:
    """Exit status, lines, and what was said beside them, of ``python -m service keys …``."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "keys", *arguments, cwd=folder,
        env={**os.environ, "OLLAMA_PROXY_DB": str(folder / "queue.db"), **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_SECONDS):
        output, errors = await process.communicate()
    return process.returncode or 0, output.decode().splitlines(), errors.decode()


@pytest.fixture(params=["running", "stopped"])
async def folder(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Path]:
    """Where the database is: held by a running service, or by nobody."""
    if request.param == "stopped":
        yield tmp_path
        return
    async with service_in_process(folder=tmp_path) as service:
        socket = admin_socket_path(service.config)
        assert socket is not None
        await web.UnixSite(service.runner, socket).start()
        yield tmp_path


async def test_keys_are_managed_from_the_command_line_whether_or_not_the_service_runs(folder: Path) -> None:
    status, [text], said = await ran(
        folder, "create", "--name", "Anna B", "--requests-per-hour", "5", "--concurrency", "1", "--models", "a,b",
        "--max-priority", "normal", "--weight", "2", "--owner-header", "X-User", "--expires", "2099-01-31",
    )  # fmt: skip
    assert status == 0
    assert text.startswith(KEY_PREFIX)
    status, [head, row], _ = await ran(folder, "list")
    key_id = row.split()[0]
    assert key_id in said
    assert dict(zip(head.split(), row.replace("Anna B", "Anna_B").split(), strict=True)) == {
        "id": key_id, "name": "Anna_B", "role": "user", "rate_limit": "5", "concurrency": "1", "models": "a,b",
        "max_priority": "normal", "expires_at": "2099-01-31T00:00:00.000Z", "is_active": "yes",
    }  # fmt: skip
    status, lines, said = await ran(folder, "revoke", key_id)
    assert (status, lines, str(folder) in said) == (0, [f"revoked {key_id} 'Anna B'"], True)
    _, [_, row], _ = await ran(folder, "list")
    assert row.endswith("no")


async def test_the_command_line_says_what_cannot_be(folder: Path) -> None:
    status, lines, said = await ran(folder, "create", "--name", "x", "--weight", "0")
    assert (status, lines) == (2, [])
    assert said.startswith("corral: weight: must be at least 0.001")
    status, lines, said = await ran(folder, "revoke", "../keys")
    assert (status, lines) == (1, [])
    assert said.startswith("corral: there is no key '../keys'")


async def test_keys_of_a_lost_secret_can_be_revoked(tmp_path: Path) -> None:
    await ran(tmp_path, "create", "--name", "x", SECRET_KEY=ONE)
    status, _, said = await ran(tmp_path, "create", "--name", "y", SECRET_KEY=TWO)
    assert status == 1
    assert said.startswith("corral: SECRET_KEY")
    _, [_, row], _ = await ran(tmp_path, "list")
    assert (await ran(tmp_path, "revoke", row.split()[0]))[0] == 0
    assert (await ran(tmp_path, "create", "--name", "y", SECRET_KEY=TWO))[0] == 0


async def test_the_database_and_the_socket_are_for_the_services_own_user(tmp_path: Path) -> None:
    place = Place(DatabaseConfig(path=tmp_path / "queue.db"))
    async with place.opened() as database:
        await Keyring.open(KeyStore(database), Clock())
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}
