"""The websocket: all jobs, single jobs or the figures, live, to each client at its own pace."""

from service.api.live.websocket.routes import ROUTES

__all__ = ["ROUTES"]
