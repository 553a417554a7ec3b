"""The schema, as numbered steps. They are applied at the start and recorded in ``schema_migrations``.

A step is written once for both databases. Each fills in its own words for ``{growing_key}``, ``{integer}`` (64 bits),
``{real}``, ``{strict}`` (a table checks its types), ``{model_of_runner}`` (of the column ``runner``), and for the frame
of the triggers on views.
"""

from __future__ import annotations

from typing import NamedTuple

from service.store.migrations.m0001_jobs import STATEMENTS as M0001
from service.store.migrations.m0002_keys import STATEMENTS as M0002
from service.store.migrations.m0003_idempotency import STATEMENTS as M0003
from service.store.migrations.m0004_new_jobs import STATEMENTS as M0004
from service.store.migrations.m0005_fewer_indexes import STATEMENTS as M0005
from service.store.migrations.m0006_outcomes import STATEMENTS as M0006
from service.store.migrations.m0007_shorter_inserts import STATEMENTS as M0007
from service.store.migrations.m0008_whole_rows import STATEMENTS as M0008
from service.store.migrations.m0009_model_lists import STATEMENTS as M0009
from service.store.migrations.m0010_model_fits import STATEMENTS as M0010
from service.store.migrations.m0011_reply_pieces import STATEMENTS as M0011
from service.store.migrations.m0012_request_ids import STATEMENTS as M0012
from service.store.migrations.m0013_served_by_model import STATEMENTS as M0013
from service.store.migrations.m0014_revocations import STATEMENTS as M0014
from service.store.migrations.m0015_contents import STATEMENTS as M0015
from service.store.migrations.m0016_audit import STATEMENTS as M0016


class Migration(NamedTuple):
    """One numbered change of the schema."""

    number: int
    statements: tuple[str, ...]


_STEPS = (
    M0001,
    M0002,
    M0003,
    M0004,
    M0005,
    M0006,
    M0007,
    M0008,
    M0009,
    M0010,
    M0011,
    M0012,
    M0013,
    M0014,
    M0015,
    M0016,
)
MIGRATIONS = tuple(Migration(number, step) for number, step in enumerate(_STEPS, 1))
NEWEST = MIGRATIONS[-1].number
