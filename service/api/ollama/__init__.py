"""Ollama's own API, drop-in."""

from service.api.ollama.errors import shape
from service.api.ollama.routes import ROUTES

__all__ = ["ROUTES", "shape"]
