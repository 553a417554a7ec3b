"""The requests API: the same jobs under integer ids, with the three statuses that its clients know."""

from service.api.requests.routes import ROUTES

__all__ = ["ROUTES"]
