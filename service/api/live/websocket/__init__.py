"""The websocket: every job, some jobs or the figures, live; each client at its own pace."""

from service.api.live.websocket.routes import ROUTES

__all__ = ["ROUTES"]
