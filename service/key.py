"""A key and the words for it: who may call, as what, and within which limits."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from service.job import model_key

_OWNER = "key:"
KEY_REVOKED = "this API key was revoked; ask an admin for another"
"""What its holder is told."""
LONGEST_USER = 128
"""Characters of a person's name."""


class Role(StrEnum):
    """What a key may do."""

    ADMIN = "admin"
    """See everybody's jobs; manage keys, models and backends."""
    USER = "user"


class NewKey(NamedTuple):
    """What somebody wants a key to be. None: without that limit."""

    name: str
    role: Role = Role.USER
    requests_per_hour: int | None = None
    concurrency: int | None = None
    """How many of its jobs may run at a time; the others wait."""
    models: tuple[str, ...] = ()
    """The only models that it may use, as they were written; () for all."""
    max_priority: int | None = None
    weight: float = 1.0
    """Its share of the backends' time, against 1.0 of everybody else."""
    owner_header: str | None = None
    """The header in which it names the person behind each request."""
    expires_at: int | None = None
    """Milliseconds since the epoch."""
    retention_days: int | None = None
    """How long the contents of its jobs are kept after their end; 0: until a result was taken. None: as their rows."""


class Key(NamedTuple):
    """A key as it is stored, but for its hash. Times are milliseconds since the epoch."""

    id: str
    name: str
    role: Role
    requests_per_hour: int | None
    concurrency: int | None
    models: tuple[str, ...]
    max_priority: int | None
    weight: float
    owner_header: str | None
    expires_at: int | None
    retention_days: int | None
    is_active: bool
    """False once it is revoked."""
    keeps_jobs: bool
    """Whether its jobs go on when it is revoked."""
    created_at: int
    last_used_at: int | None

    @property
    def is_admin(self) -> bool:
        return self.role == Role.ADMIN

    def is_expired(self, now: int) -> bool:
        return self.expires_at is not None and self.expires_at <= now

    def may_use(self, model: str) -> bool:
        """Whether the model is on its list, matched as Ollama matches names."""
        return not self.models or model_key(model) in map(model_key, self.models)


def owner_of_key(key_id: str, user: str | None = None) -> str:
    """Whose turn it is when this key, or one person behind it, asks (see service.queue)."""
    return f"{_OWNER}{key_id}/{user}" if user else f"{_OWNER}{key_id}"


def key_of_owner(owner: str) -> str | None:
    """The id of the key behind an owner; None for a client address."""
    return owner[len(_OWNER) :].partition("/")[0] if owner.startswith(_OWNER) else None
