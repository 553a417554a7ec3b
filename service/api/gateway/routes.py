"""What the gateway offers beside the dialects."""

from __future__ import annotations

from service.api.gateway import keys, stats, tokens

ROUTES = (*keys.ROUTES, *tokens.ROUTES, *stats.ROUTES)
