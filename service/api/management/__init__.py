"""What is offered beside the dialects: keys, browser tokens, statistics, installed models, the audit."""

from service.api.management import audit, installed_models, keys, stats, tokens

__all__ = ["ROUTES"]

ROUTES = (*installed_models.ROUTES, *keys.ROUTES, *tokens.ROUTES, *stats.ROUTES, *audit.ROUTES)
