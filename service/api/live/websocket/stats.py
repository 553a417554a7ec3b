"""The ``stats`` channel: how much there is to do, told at most once a second."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from aiohttp import web

from service.api.http.json_replies import json_text
from service.backend.pool import Pool
from service.job import Status
from service.jobs import Jobs


def count_jobs(jobs: Jobs) -> dict[str, int]:
    """How many jobs there are in each status, from the gauges, which may count one away before they hear of it."""
    return {str(status): max(0, jobs.backlog.gauges.total(status)) for status in Status}


def figures_of(jobs: Jobs, pool: Pool) -> dict[str, int]:
    """Jobs by status, how many of them run in this process, and how many could."""
    return {**count_jobs(jobs), "running": len(jobs.ledger.running), "seats": pool.seats}


_ROUND_SECONDS = 1.0


class Listener(Protocol):
    """Takes the figures as JSON; must return at once."""

    def figures(self, text: str) -> None: ...


class StatsChannel:
    """The figures and those who listen to them."""

    def __init__(self, jobs: Jobs, pool: Pool) -> None:
        self._jobs = jobs
        self._pool = pool
        self._listeners: dict[Listener, None] = {}
        self._told = ""

    def figures(self) -> dict[str, Any]:
        """The figures now."""
        return figures_of(self._jobs, self._pool)

    def subscribe(self, listener: Listener) -> None:
        self._listeners[listener] = None

    def unsubscribe(self, listener: Listener) -> None:
        self._listeners.pop(listener, None)

    async def keep_telling(self) -> None:
        """Tell what has changed, once a second; never returns."""
        while True:
            await asyncio.sleep(_ROUND_SECONDS)
            if not self._listeners:
                continue
            text = json_text({"type": "stats", **self.figures()})
            if text != self._told:
                self._told = text
                for listener in tuple(self._listeners):
                    listener.figures(text)


STATS = web.AppKey("stats", StatsChannel)
