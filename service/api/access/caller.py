"""Who is behind a request, and what it may see."""

from __future__ import annotations

from typing import NamedTuple

from aiohttp import web

from service.job import Job
from service.key import Key, Role, key_of_owner
from service.store.job_filters import Filter


class Caller(NamedTuple):
    """Whoever asks."""

    owner: str
    """The owner of its jobs, whose turns they take: a key, a person behind a key, or a client address."""
    key: Key | None = None
    """None for an anonymous caller, and for the admin socket."""
    role: Role | None = None
    """None for an anonymous caller."""
    sees_all: bool = False
    user: str | None = None
    """The person behind the key, where the key names one; "" for one without a name, who sees what names nobody."""
    expires_at: int | None = None
    """When its token ends (milliseconds since the epoch); None when it showed a key, or nothing."""

    @property
    def is_admin(self) -> bool:
        return self.role == Role.ADMIN

    @property
    def is_known(self) -> bool:
        """Whether it may be told how the service is: it has shown a key, or none is required."""
        return self.sees_all or self.key is not None

    @property
    def key_id(self) -> str | None:
        return self.key.id if self.key is not None else None

    @property
    def ends_at(self) -> int | None:
        """When its token or its key ends (milliseconds since the epoch); None when neither does by itself."""
        return self.expires_at or (self.key.expires_at if self.key is not None else None)

    @property
    def is_front_end(self) -> bool:
        """Whether it shows a key for itself, and so sees the jobs of all persons behind the key. A token is one
        browser's: without a person it sees only the jobs without one.
        """
        return self.key is not None and self.user is None and self.expires_at is None

    def sees(self, job: Job) -> bool:
        """Whether the job is one of those that this caller may know of."""
        if self.sees_all:
            return True
        if self.key is None or job.key_id != self.key.id:
            return False
        return self.is_front_end or job.owner == self.owner

    def may_purge(self, job: Job) -> bool:
        """Whether it may remove a job that it may know of: one of its own, an admin any. Where everybody sees all, a
        job that was made without a key is its address's.
        """
        if self.is_admin:
            return True
        if self.key is None:
            return job.key_id is None and job.owner == self.owner
        return self.narrowed.sees(job)

    @property
    def narrowed(self) -> Caller:
        """The same, without what it may see only because nobody needs a key here."""
        return self._replace(sees_all=self.is_admin)

    def only_visible(self, which: Filter) -> Filter:
        """The filter, narrowed to what this caller may know of."""
        if self.sees_all:
            return which
        if self.key is not None and self.key.owner_header is not None and self.is_front_end:
            return which._replace(key_id=self.key.id)
        return which._replace(owner=self.owner)

    def may_name(self, owner: str | None, key_id: str | None) -> bool:
        """Whether it may ask for the jobs of this owner and of this key."""
        if self.sees_all:
            return True
        if owner is not None and owner != self.owner:
            is_behind_its_key = self.is_front_end and key_of_owner(owner) == self.key_id
            if not is_behind_its_key:
                return False
        return key_id is None or key_id == self.key_id

    def only_own(self, which: Filter) -> Filter:
        """The filter, narrowed to what this caller has made itself."""
        if self.key is None:
            return which._replace(anonymous_owner=self.owner)
        return which._replace(owner=self.owner, key_id=self.key.id)


CALLER = web.RequestKey("caller", Caller)
