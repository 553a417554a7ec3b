"""Taking over a new configuration while the service runs: backends, models and limits."""

from __future__ import annotations

import logging

from aiohttp import ClientSession

from service.backend.pool import Pool, build_backend
from service.clock import Clock
from service.config import Config
from service.jobs import Jobs, Limits
from service.model_limits import ModelLimits
from service.workers import Workers

_log = logging.getLogger(__name__)

_TAKEN_OVER = {
    "backends": None,
    "models": None,
    "retry": None,
    "timeouts": None,
    "output": None,
    "queue": frozenset({"max_size", "max_size_per_owner", "max_bytes", "max_swap_wait_seconds", "hold_busy"}),
}
"""Sections, and those of their keys where not all; the others are read at the start only."""


class Reloading:
    """The parts that a configuration can be given to."""

    def __init__(
        self,
        config: Config,
        session: ClientSession,
        clock: Clock,
        jobs: Jobs,
        pool: Pool,
        workers: Workers,
        model_limits: ModelLimits,
    ) -> None:
        self._config = config
        self._session = session
        self._clock = clock
        self._jobs = jobs
        self._pool = pool
        self._workers = workers
        self._model_limits = model_limits

    def apply(self, config: Config) -> None:
        """From now on this configuration holds, for all that can be changed without a restart."""
        self._jobs.limits = limits_of(config)
        self._model_limits.replace(config.models)
        self._pool.reconfigure(config, lambda one: build_backend(one, self._session, config, self._clock))
        self._workers.reconfigure(config.timeouts, config.retry, holds_busy=config.queue.hold_busy)
        names = ", ".join(backend.name for backend in config.backends)
        _log.info("the configuration was read again; backends: %s", names)
        if left := _changes_for_a_restart(self._config, config):
            _log.warning("these changes wait for a restart: %s", ", ".join(left))
        self._config = config


def limits_of(config: Config) -> Limits:
    """What the core refuses."""
    queue = config.queue
    return Limits(queue.max_size, queue.max_bytes, config.output.max_bytes, queue.max_size_per_owner)


def _changes_for_a_restart(before: Config, after: Config) -> list[str]:
    left = []
    for section in Config.model_fields:
        old, new = getattr(before, section), getattr(after, section)
        taken = _TAKEN_OVER.get(section, frozenset())
        if taken is not None and old != new:
            left += [
                f"{section}.{key}"
                for key in type(old).model_fields
                if key not in taken and getattr(old, key) != getattr(new, key)
            ]
    return left
