"""How another process commands faults and reads what happened: `/simulated/faults`, `/simulated/state`."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from service.simulated.faults import Fault
from service.simulated.simulation import SIMULATION


async def arm(request: web.Request) -> web.Response:
    """One fault or a list of them, each an object with the fields of `Fault`; answers with their ids."""
    try:
        given: Any = json.loads(await request.read())
        faults = [Fault.from_json(each) for each in (given if isinstance(given, list) else [given])]
    except (ValueError, TypeError) as error:
        return web.json_response({"error": str(error)}, status=400)
    armed = [request.app[SIMULATION].faults.arm(fault) for fault in faults]
    return web.json_response({"ids": [each.number for each in armed]})


async def listed(request: web.Request) -> web.Response:
    return web.json_response({"faults": [each.to_json() for each in request.app[SIMULATION].faults]})


async def clear(request: web.Request) -> web.Response:
    """Remove all faults, or the one with `?id=`; what they have stalled goes on."""
    faults = request.app[SIMULATION].faults
    wanted = request.query.get("id")
    for armed in list(faults):
        if wanted is None or str(armed.number) == wanted:
            armed.release()
    return web.json_response({"faults": [each.to_json() for each in faults]})


async def state(request: web.Request) -> web.Response:
    simulation = request.app[SIMULATION]
    loaded = [runner.model.name for runner in simulation.scheduler.loaded]
    return web.json_response({**simulation.observations.summary(), "loaded": loaded})


ROUTES = (
    web.post("/simulated/faults", arm),
    web.get("/simulated/faults", listed),
    web.delete("/simulated/faults", clear),
    web.get("/simulated/state", state),
)
