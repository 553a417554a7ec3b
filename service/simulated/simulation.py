"""The state of one simulated Ollama, which its routes share."""

from __future__ import annotations

from aiohttp import web

from service.simulated.faults import Faults
from service.simulated.models import Catalog
from service.simulated.observations import Observations
from service.simulated.scheduler import Scheduler
from service.simulated.settings import SimulatedSettings


class Simulation:
    """Settings, models, faults, what was seen, and the scheduler over them."""

    def __init__(self, settings: SimulatedSettings) -> None:
        self.settings = settings
        self.catalog = Catalog(settings.models)
        self.faults = Faults()
        self.observations = Observations(settings.remembered_requests)
        self.scheduler = Scheduler(settings, self.faults, self.observations)
        self.blobs: set[str] = set()  # digests; the bytes themselves are of no use


SIMULATION = web.AppKey("simulation", Simulation)
