"""Taking over a new configuration while the service runs: backends, models and limits."""

from __future__ import annotations

import logging

from pydantic import BaseModel

from service.api.context import QueueSettings
from service.audit import SIGNAL, Action, Audit
from service.backend.http.connections import Connections
from service.backend.pool import Pool, build_backend
from service.clock import Clock
from service.config import Config
from service.model_limits import ModelLimits
from service.queue.backlog import Backlog
from service.queue.capacity import QueueLimits
from service.workers.workers import Workers

_log = logging.getLogger(__name__)

_TAKEN_OVER = frozenset({"backends", "models", "retry", "timeouts", "output", "queue", "log"})
"""The sections that a reload takes over; the others are read at the start only."""


class Reloading:
    """The parts that a configuration can be given to."""

    def __init__(
        self,
        config: Config,
        connections: Connections,
        clock: Clock,
        backlog: Backlog,
        pool: Pool,
        workers: Workers,
        model_limits: ModelLimits,
        queue: QueueSettings,
        audit: Audit,
    ) -> None:
        self._at_start = self._config = config
        self._connections = connections
        self._clock = clock
        self._backlog = backlog
        self._pool = pool
        self._workers = workers
        self._model_limits = model_limits
        self._queue = queue
        self._audit = audit

    def apply(self, config: Config) -> None:
        """From now on this configuration holds, for all that can be changed without a restart."""
        self._queue.present = config.queue
        self._backlog.limits = limits_of(config)
        self._backlog.order.set_boosts(boosts_ms_of(config))
        self._model_limits.replace(config.models)
        self._pool.reconfigure(config, lambda one: build_backend(one, self._connections, config, self._clock))
        self._workers.reconfigure(config.timeouts, config.retry, holds_busy=config.queue.hold_busy)
        names = ", ".join(backend.name for backend in config.backends)
        _log.info("the configuration was read again; backends: %s", names)
        taken = _changes(self._config, config, is_taken=True)
        left = _changes(self._at_start, config, is_taken=False)
        if left:
            _log.warning("these changes wait for a restart: %s", ", ".join(left))
        self._audit.note(Action.RELOADED, SIGNAL, changed=taken, waiting=left)
        self._config = config

    def refuse(self) -> None:
        """A configuration could not be read; the log says why."""
        self._audit.note(Action.RELOAD_FAILED, SIGNAL)


def limits_of(config: Config) -> QueueLimits:
    """What the core refuses."""
    queue = config.queue
    own = None if queue.max_size_per_owner == "fair" else queue.max_size_per_owner
    return QueueLimits(queue.max_size, queue.max_bytes, config.output.max_bytes, own)


def boosts_ms_of(config: Config) -> dict[int, float]:
    """What the order gives to each priority."""
    return {priority: seconds * 1000 for priority, seconds in config.queue.boosts.items()}


def _changes(before: Config, after: Config, *, is_taken: bool) -> list[str]:
    """The names of what has changed and holds from now on, or waits for a restart. No value is told."""
    changed: list[str] = []
    for section in Config.model_fields:
        old, new = getattr(before, section), getattr(after, section)
        if (section in _TAKEN_OVER) is not is_taken:
            continue
        if isinstance(old, BaseModel):
            changed += [f"{section}.{key}" for key in type(old).model_fields if getattr(old, key) != getattr(new, key)]
        elif old != new:
            changed.append(section)
    return changed
