"""What handlers find in the application: put there by the composition root, and by ``add_routes``."""

from __future__ import annotations

from aiohttp import web

from service.api.audience import Audience
from service.backend.pool import Pool
from service.clock import Clock
from service.config import Config
from service.hub import Hub
from service.jobs import Jobs
from service.measures import Measures
from service.model_limits import ModelLimits

CONFIG = web.AppKey("config", Config)
MEASURES = web.AppKey("measures", Measures)
JOBS = web.AppKey("jobs", Jobs)
HUB = web.AppKey("hub", Hub)
CLOCK = web.AppKey("clock", Clock)
POOL = web.AppKey("pool", Pool)
MODEL_LIMITS = web.AppKey("model_limits", ModelLimits)
AUDIENCE = web.AppKey("audience", Audience)
