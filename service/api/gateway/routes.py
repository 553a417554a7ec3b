"""What the gateway offers beside the dialects."""

from __future__ import annotations

from service.api.gateway import installed_models, keys, stats, tokens

ROUTES = (*installed_models.ROUTES, *keys.ROUTES, *tokens.ROUTES, *stats.ROUTES)
