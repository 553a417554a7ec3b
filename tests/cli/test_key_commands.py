"""``keys`` in the configured database, of either kind, and what is done with it said on stderr."""

from __future__ import annotations

import pytest

from tests.support.command_line import ran
from tests.support.databases import Place


@pytest.fixture
def here(place: Place) -> dict[str, str]:
    """What names the database to a command."""
    config = place.config
    return {"DATABASE_URL": config.url} if config.url else {"OLLAMA_PROXY_DB": str(config.path)}


async def test_the_first_key_is_made_where_no_service_runs(here: dict[str, str]) -> None:
    created = await ran("keys", "create", "--name", "me", "--role", "admin", "--json", environ=here)
    assert (created.status, created.objects[0]["role"]) == (0, "admin")
    assert " in the database " in created.err
    key_id = created.objects[0]["id"]
    [listed] = (await ran("keys", "list", "--json", environ=here)).objects
    assert (listed["id"], listed["is_active"], "key" in listed) == (key_id, True, False)
    revoked = await ran("keys", "revoke", key_id, "--json", environ=here)
    assert (revoked.status, revoked.objects[0]["is_active"]) == (0, False)
    assert " in the database " in revoked.err
    # A password of the database is nobody's to see.
    assert "postgres" not in (created.err + revoked.err).lower().replace("postgresql", "")
