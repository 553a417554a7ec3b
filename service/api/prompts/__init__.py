"""The prompts API: Corral's own, under ``/api/v1``."""

from service.api.prompts.routes import ROUTES

__all__ = ["ROUTES"]
