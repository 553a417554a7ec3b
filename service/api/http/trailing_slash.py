"""Corral's own paths with a slash more at the end: its API answers there as without, and its pages redirect.

The places that are told in ``Location`` are relative references, so that they hold behind a proxy that serves all of it
below a path of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from aiohttp import web
from yarl import URL

from service.api.http.unrouted import OWN, redirection

_Resolved = tuple[web.UrlMappingMatchInfo | None, set[str]]


def below(request: web.Request, place: str) -> str:
    """The reference to ``place`` below the path of this request, as ``Location`` tells it."""
    path = request.rel_url.raw_path
    return place if path.endswith("/") else f"{path.rpartition('/')[2]}/{place}"


def accept_trailing_slashes(
    app: web.Application, answering: Iterable[web.AbstractRoute], redirecting: Iterable[web.AbstractRoute]
) -> None:
    """Serve the paths of these routes with a slash at the end, too. To all that goes by the route (keys, the log, the
    metrics, other origins) such a request is one to the route.
    """
    for routes, redirects in ((answering, False), (redirecting, True)):
        # A home page's path is the slash itself.
        resources = {route.resource: None for route in routes if route.resource and route.resource.canonical != "/"}
        app[OWN] = app.get(OWN, frozenset()) | resources.keys()
        for resource in resources:
            app.router.register_resource(_WithSlash(resource, redirects=redirects))


class _WithSlash(web.AbstractResource):
    """A resource under its path with a slash at the end. It has no routes: it finds those of the resource."""

    def __init__(self, resource: web.AbstractResource, *, redirects: bool) -> None:
        super().__init__()
        self._resource = resource
        self._redirects = redirects

    @property
    def canonical(self) -> str:
        return self._resource.canonical

    async def resolve(self, request: web.Request) -> _Resolved:
        url = request.rel_url
        if not url.raw_path.endswith("/"):
            return None, set()
        without = URL.build(path=url.raw_path[:-1], encoded=True)
        found, allowed = await self._resource.resolve(request.clone(rel_url=without))
        if found is None or not self._redirects or found.route.method == "OPTIONS":
            return found, allowed
        return web.UrlMappingMatchInfo({}, web.ResourceRoute(request.method, _lead_back, self._resource)), allowed

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter(())

    def raw_match(self, path: str) -> bool:
        return False

    def get_info(self) -> Any:
        return self._resource.get_info()

    def url_for(self, **values: str) -> URL:
        return self._resource.url_for(**values)

    def add_prefix(self, prefix: str) -> None:
        """The resource is given it, too, and this has no path of its own."""


async def _lead_back(request: web.Request) -> web.Response:
    return redirection(request, 308, f"../{request.rel_url.raw_path[:-1].rpartition('/')[2]}")
