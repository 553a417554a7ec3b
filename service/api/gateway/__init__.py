"""The gateway's own affairs: keys, browser tokens, statistics."""

from service.api.gateway.routes import ROUTES

__all__ = ["ROUTES"]
