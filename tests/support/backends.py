"""Services with several backends: how they are configured, and waiting until they are known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from service.simulated import SimulatedServer
from tests.support.running import PATIENCE_SECONDS, RunningService


def backends(*servers: SimulatedServer, **fields: Any) -> dict[str, Any]:
    """The option that names these servers box0, box1, …"""
    return {
        "backends": [
            {"name": f"box{number}", "url": server.url, "concurrency": 2, **fields}
            for number, server in enumerate(servers)
        ]
    }


async def until_health(service: RunningService, is_right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask for ``/health``, as the admin where there is one, until what it says is right."""
    admin = service.config.auth.demo_admin_key
    headers = {"Authorization": f"Bearer {admin}"} if admin else {}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            _, health = await service.call("GET", "/health", headers=headers)
            if is_right(health):
                return dict(health)


async def until_answering(service: RunningService, count: int) -> None:
    """Wait until so many backends, and no more, are known to answer."""
    await until_health(service, lambda health: [one["status"] for one in health["backends"]].count("ok") == count)
