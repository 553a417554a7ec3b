"""A backend that answers what a test wants, and is silent where a test wants that, as one that hangs is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.raw_server import Exchange, raw_server, whole

CALLER = {"X-Caller": "a caller"}
"""Sent by a test along with its requests, so that they are told from the service's own questions."""


@dataclass
class ScriptedBackend:
    """One backend. ``silent`` and ``refused`` are paths, and may be changed at any time."""

    name: str
    models: list[str]
    order: list[tuple[str, str]]
    """Who was asked what by callers, over all backends."""
    url: str = ""
    silent: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by each request of a caller."""
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends its silence."""
    counts: dict[str, int] = field(default_factory=dict)
    """How often it was asked what, by anybody."""

    async def answer(self, exchange: Exchange) -> None:
        path = exchange.path
        self.counts[path] = self.counts.get(path, 0) + 1
        if "X-Caller" in exchange.headers:
            self.order.append((self.name, path))
            self.asked.set()
        if path in self.silent:
            gone = asyncio.ensure_future(exchange.until_gone())
            allowed = asyncio.ensure_future(self.may_answer.wait())
            await asyncio.wait((gone, allowed), return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            allowed.cancel()
            await asyncio.wait((gone, allowed))
            if not self.may_answer.is_set():
                return
        if path in self.refused:
            error = {"error": f"{self.name} has nothing of that"}
            await exchange.send(whole(json.dumps(error).encode(), status="404 Not Found"))
            return
        await exchange.send(whole(json.dumps(self._told(path)).encode()))

    def _told(self, path: str) -> dict[str, Any]:
        match path:
            case "/api/version":
                return {"version": "0.40.0"}
            case "/api/tags":
                return {"models": [{"name": model, "model": model} for model in self.models]}
            case "/api/ps":
                return {"models": [{"name": model, "model": model} for model in self.models]}
            case _:
                return {"by": self.name, "done": True, "done_reason": "unload", "response": ""}


@asynccontextmanager
async def scripted_backends(**models: list[str]) -> AsyncIterator[tuple[ScriptedBackend, ...]]:
    """Backends of these names, with these models."""
    order: list[tuple[str, str]] = []
    boxes = tuple(ScriptedBackend(name, having, order) for name, having in models.items())
    async with AsyncExitStack() as serving:
        for box in boxes:
            box.url = (await serving.enter_async_context(raw_server(box.answer))).url
        yield boxes
