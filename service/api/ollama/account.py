"""What the backends say of ollama.com: whether they may use it, under which account, and what is recommended there."""

from __future__ import annotations

from aiohttp import web

from service.api.dropin.passing import pass_to_first, quick


async def status(request: web.Request) -> web.StreamResponse:
    """Whether the cloud may be used. Raises NoBackendError, as all of these do."""
    return await pass_to_first(request, "/api/status", None, limits=quick(request))


async def me(request: web.Request) -> web.StreamResponse:
    """The account of one backend, which has to ask ollama.com. A body would say nothing, and stays here."""
    return await pass_to_first(request, "/api/me", None)


async def recommendations(request: web.Request) -> web.StreamResponse:
    """The models that are recommended there."""
    return await pass_to_first(request, "/api/experimental/model-recommendations", None, limits=quick(request))
