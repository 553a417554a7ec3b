"""What is new or changed among the jobs since the last look."""

from __future__ import annotations

from typing import Any

from corral.async_client import AsyncClient
from corral.call import new_call
from corral.errors import (
    CallTimeoutError,
    CircuitOpenError,
    ConnectionFailedError,
    NotFoundError,
    RateLimitError,
    ServerError,
)
from corral.surface import parts_of

_FINAL = ("completed", "failed", "cancelled")
_MOST_PAGES = 20
"""Of new jobs between two looks: 2,000, beyond which a follower has lost sight anyway."""
_MOST_WATCHED = 500


class Changes:
    """Looks at the newest jobs again and again. What is kept is bounded: jobs that are final are told of once, and of
    those that are not the newest 500 are watched.
    """

    passing = (ConnectionFailedError, CallTimeoutError, CircuitOpenError, ServerError, RateLimitError)
    """What ends no following."""

    def __init__(self, client: AsyncClient, filters: dict[str, str | None], number: int) -> None:
        self._client = client
        self._wanted = filters["status"]
        given = {"model": filters["model"], "q": filters["text"]}
        self._filters = {name: value for name, value in given.items() if value is not None}
        self._number = number
        self._is_begun = False
        self._seen: set[str] = set()
        """The newest jobs as the last look found them."""
        self._watched: dict[str, tuple[str, int]] = {}
        """Jobs that are not final, with the status and attempt that was told; None was told of others."""

    async def look(self) -> list[Any]:
        """The jobs to be told of, oldest first."""
        if not self._is_begun:
            return await self._first_look()
        listed = await self._since_last()
        present = {job["id"] for job in listed}
        for job_id in [one for one in self._watched if one not in present]:
            try:
                listed.append(await self._client.job(job_id).status())
            except NotFoundError:
                # Purged, or pruned.
                del self._watched[job_id]
        # Those of one millisecond stay in their order.
        listed.reverse()
        told = [job for job in sorted(listed, key=lambda one: one["created_at"]) if self._is_news(job)]
        self._forget()
        return told

    async def _first_look(self) -> list[Any]:
        filters = self._filters | ({"status": self._wanted} if self._wanted else {})
        found: list[Any] = []
        query = dict(filters)
        while len(found) < self._number:
            page, after = await self._page(query)
            found += page
            if after is None:
                break
            query["before"] = after
        newest, _ = await self._page({**self._filters})
        self._seen, self._is_begun = {job["id"] for job in newest}, True
        found = found[: self._number][::-1]
        for job in {job["id"]: job for job in [*newest[::-1], *found]}.values():
            self._is_news(job)
        self._forget()
        return found

    async def _since_last(self) -> list[Any]:
        """What was made since the last look, and what is watched of the jobs down to which that went."""
        found: list[Any] = []
        first: list[Any] | None = None
        query, is_behind = dict(self._filters), False
        for _ in range(_MOST_PAGES):
            page, after = await self._page(query)
            first = page if first is None else first
            for job in page:
                is_behind = is_behind or job["id"] in self._seen
                if not is_behind or job["id"] in self._watched:
                    found.append(job)
            if is_behind or after is None:
                break
            query["before"] = after
        if first:
            self._seen = {job["id"] for job in first}
        return found

    async def _page(self, query: dict[str, str]) -> tuple[list[Any], str | None]:
        page, after = await parts_of(self._client).prompts.page(new_call(None), query)
        return list(page), after

    def _is_news(self, job: Any) -> bool:
        """Whether it is told: when it has the wanted status, or has just left it."""
        job_id, now = job["id"], (job["status"], job["attempt"])
        before = self._watched.get(job_id)
        if job["status"] in _FINAL:
            self._watched.pop(job_id, None)
        else:
            self._watched[job_id] = now
        if before == now:
            return False
        was_told = before is not None and self._wanted in (None, before[0])
        return self._wanted in (None, job["status"]) or was_told

    def _forget(self) -> None:
        for job_id in list(self._watched)[: max(0, len(self._watched) - _MOST_WATCHED)]:
            del self._watched[job_id]
