"""What handlers find in the application, where the composition root and ``add_routes`` put it."""

from __future__ import annotations

from aiohttp import web

from service.api.body_room import BodyRoom
from service.api.long_lived import LongLived
from service.audit import Audit
from service.backend.pool import Pool
from service.clock import Clock
from service.config import Config, QueueConfig
from service.jobs import Jobs
from service.live.hub import Hub
from service.maintenance.revocations import Revocations
from service.metrics.values import Metrics
from service.model_limits import ModelLimits


class QueueSettings:
    """The section ``[queue]`` as it holds at present: it may change while the service runs."""

    def __init__(self, present: QueueConfig) -> None:
        self.present = present


CONFIG = web.AppKey("config", Config)
"""The configuration as it was at the start."""
QUEUE = web.AppKey("queue", QueueSettings)
METRICS = web.AppKey("metrics", Metrics)
JOBS = web.AppKey("jobs", Jobs)
REVOCATIONS = web.AppKey("revocations", Revocations)
AUDIT = web.AppKey("audit", Audit)
HUB = web.AppKey("hub", Hub)
CLOCK = web.AppKey("clock", Clock)
POOL = web.AppKey("pool", Pool)
MODEL_LIMITS = web.AppKey("model_limits", ModelLimits)
BODY_ROOM = web.AppKey("body_room", BodyRoom)
LONG_LIVED = web.AppKey("long_lived", LongLived)
