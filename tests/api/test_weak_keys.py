"""Secrets that somebody has made up: new ones that can be guessed are refused, those in use are loudly warned of."""

from __future__ import annotations

import pytest

from service.audit import START
from service.clock import Clock
from service.errors import ConfigurationError
from service.key import NewKey, Role
from service.keys.keyring import Keyring
from service.store.database import Database
from service.store.keys import KeyStore


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


@pytest.fixture
async def keys(store: KeyStore) -> Keyring:
    return await Keyring.open(store, Clock())


@pytest.mark.parametrize("length", [1, 15, 16])
async def test_a_new_demo_key_that_is_short_is_refused(store: KeyStore, keys: Keyring, length: int) -> None:
    text = "x" * length
    if length >= 16:
        await keys.keep_demo_key(Role.USER, text)
        assert keys.find(text)
        return
    with pytest.raises(ConfigurationError, match=r"^DEMO_USER_KEY has \d+ characters and may be guessed; set ") as told:
        await keys.keep_demo_key(Role.USER, text)
    assert "xx" not in str(told.value)
    assert await store.all() == []


async def test_a_short_demo_key_that_is_stored_already_is_warned_of_and_another_one_refused(
    store: KeyStore, keys: Keyring, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("service.keys.keyring.SHORTEST_DEMO_KEY", 1)
        await keys.keep_demo_key(Role.USER, "short")
    assert caplog.messages == []
    for _ in range(2):
        await keys.keep_demo_key(Role.USER, "short")
    assert [line[:44] for line in caplog.messages] == ["WEAK: DEMO_USER_KEY has 5 characters and may"] * 2
    with pytest.raises(ConfigurationError):
        await keys.keep_demo_key(Role.USER, "shorter")
    assert keys.find("short")
    # One that was revoked may come back.
    await keys.keep_demo_key(Role.USER, "")
    await keys.keep_demo_key(Role.USER, "short")
    assert keys.has_any


async def test_a_short_secret_is_refused_where_it_is_new_and_no_key_is_stored(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match=r"^SECRET_KEY has 31 characters and may be guessed; set .* or more$"):
        await Keyring.open(store, Clock(), "s" * 31)
    assert await store.settings() == {}
    with monkeypatch.context() as earlier:
        earlier.setattr("service.keys.keyring.SHORTEST_SECRET", 1)
        await Keyring.open(store, Clock(), "s" * 31)
    # It was accepted once, and is no new one.
    keys = await Keyring.open(store, Clock(), "s" * 31)
    assert caplog.messages[-1].startswith("WEAK: SECRET_KEY has 31 characters")
    key, _ = await keys.create(NewKey("one"), by=START)
    await keys.revoke(key.id, keeps_jobs=True, by=START)
    await Keyring.open(store, Clock(), "t" * 31)
    assert caplog.messages[-1].startswith("WEAK: SECRET_KEY has 31 characters")


async def test_what_the_documents_name_is_served_and_loudly_warned_of(
    store: KeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    keys = await Keyring.open(store, Clock(), "your-super-secret-key-change-this-in-production")
    await keys.keep_demo_key(Role.ADMIN, "demo-admin-key-12345")
    await keys.keep_demo_key(Role.USER, "demo-user-key-67890")
    assert [line.split()[1] for line in caplog.messages] == ["SECRET_KEY", "DEMO_ADMIN_KEY", "DEMO_USER_KEY"]
    assert {line.split(" is ")[1][:38] for line in caplog.messages} == {"a value that stands in public document"}
    assert "12345" not in caplog.text
