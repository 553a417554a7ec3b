"""Long polls through a proxy that ends what is silent."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from aiohttp import web

from tests.batch.conftest import Batch
from tests.batch.files import objects, prompts, written
from tests.support.running import RunningService


async def test_a_proxy_that_cuts_long_polls_loses_no_answer_and_is_not_taken_for_a_service_that_is_away(
    tmp_path: Path, batch: Batch, service: RunningService
) -> None:
    cut = 0

    async def pass_on(request: web.Request) -> web.Response:
        nonlocal cut
        try:
            # No wait that is longer gets through.
            async with asyncio.timeout(0.7):
                body = await request.read()
                headers = {"Idempotency-Key": request.headers.get("Idempotency-Key", "")} if body else {}
                async with service.session.request(
                    request.method, request.rel_url, data=body, headers=headers
                ) as reply:
                    return web.json_response(json.loads(await reply.read()), status=reply.status)
        except TimeoutError:
            cut += 1
            stalled.release()
            return web.Response(status=504)

    stalled = service.stall()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        source = written(tmp_path / "in.jsonl", *prompts(3))
        done = await batch(source, "--progress", "json", url=f"http://127.0.0.1:{port}")
    finally:
        await runner.cleanup()
    assert (done.status, len(objects(tmp_path / "out.jsonl"))) == (0, 3)
    assert cut >= 1
    assert "is away" not in done.err
