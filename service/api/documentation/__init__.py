"""The API's document, and pages that show it."""

from service.api.documentation.routes import ROUTES, prepare_documentation

__all__ = ["ROUTES", "prepare_documentation"]
