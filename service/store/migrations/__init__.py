"""The schema, as numbered steps that are applied at the start and recorded in ``schema_migrations``.

A step is written for both databases; each fills in its own words for ``{growing_key}``, ``{integer}`` (64 bits),
``{real}`` and ``{strict}`` (what makes a table check its types), and what stands around a trigger on ``new_jobs``.
"""

from __future__ import annotations

from typing import NamedTuple

from service.store.migrations.m0001_jobs import STATEMENTS as M0001
from service.store.migrations.m0002_keys import STATEMENTS as M0002
from service.store.migrations.m0003_idempotency import STATEMENTS as M0003
from service.store.migrations.m0004_new_jobs import STATEMENTS as M0004


class Migration(NamedTuple):
    """One numbered change of the schema."""

    number: int
    statements: tuple[str, ...]


MIGRATIONS = (Migration(1, M0001), Migration(2, M0002), Migration(3, M0003), Migration(4, M0004))
NEWEST = MIGRATIONS[-1].number
