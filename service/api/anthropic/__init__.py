"""Anthropic's API, drop-in."""

from service.api.anthropic.errors import shape
from service.api.anthropic.routes import ROUTES

__all__ = ["ROUTES", "shape"]
