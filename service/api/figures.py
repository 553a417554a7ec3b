"""How much there is to do, in numbers: for the websocket's ``stats`` channel and for ``/health``."""

from __future__ import annotations

from service.backend.pool import Pool
from service.job import Status
from service.jobs import Jobs


def count_jobs(jobs: Jobs) -> dict[str, int]:
    """How many jobs there are in each status, from the gauges."""
    return {str(status): jobs.total(status) for status in Status}


def figures_of(jobs: Jobs, pool: Pool) -> dict[str, int]:
    """Jobs by status, how many of them run in this process, and how many could."""
    return {**count_jobs(jobs), "running": jobs.running, "seats": pool.seats}
