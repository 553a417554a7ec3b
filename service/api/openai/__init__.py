"""OpenAI's API, drop-in."""

from service.api.openai.errors import shape
from service.api.openai.routes import ROUTES

__all__ = ["ROUTES", "shape"]
