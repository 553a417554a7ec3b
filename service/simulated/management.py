"""Models come, go and are renamed: pull, push, create, copy, delete, blobs (wire contract 1.6)."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web

from service.simulated import go_json, requests
from service.simulated.delivery import Stream
from service.simulated.errors import ReplyError
from service.simulated.models import COMPLETION, SimulatedModel, is_valid_name
from service.simulated.simulation import Simulation
from service.simulated.wire import JSON, NDJSON, PLAIN_JSON, Reply, moment

_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
# What no registry has: a pull of it fails as a pull of a misspelt name does.
_UNKNOWN_MODELS = ("nosuch", "missing", "unknown")
_NOTHING = Reply(200, b"", None)


async def pull(simulation: Simulation, request: web.Request, body: bytes) -> Reply | Stream:
    fields = requests.PULL.decode(body)
    name = _valid_name(fields)
    if name.split(":")[0].rsplit("/", 1)[-1].lower().startswith(_UNKNOWN_MODELS):
        return _progress(fields, [{"status": "pulling manifest"}], "pull model manifest: file does not exist")

    def finish() -> None:
        if simulation.catalog.find(name) is None:
            simulation.catalog.add(SimulatedModel(name, modified_at=_now()))

    model = simulation.catalog.find(name) or SimulatedModel(name)
    statuses = [{"status": "pulling manifest"}, *_layer("pulling", model)]
    statuses += [{"status": "verifying sha256 digest"}, {"status": "writing manifest"}]
    return _progress(fields, statuses, finish=finish)


async def push(simulation: Simulation, request: web.Request, body: bytes) -> Reply | Stream:
    fields = requests.PUSH.decode(body)
    name = fields.get("model") or fields.get("name")
    if not name:
        raise ReplyError(400, "model is required")
    statuses: list[dict[str, Any]] = [{"status": "retrieving manifest"}]
    model = simulation.catalog.find(name)
    if model is None:
        return _progress(fields, statuses, "couldn't retrieve manifest: file does not exist")
    return _progress(fields, [*statuses, *_layer("pushing", model), {"status": "pushing manifest"}])


async def create(simulation: Simulation, request: web.Request, body: bytes) -> Reply | Stream:
    fields = requests.CREATE.decode(body)
    name = _valid_name(fields)
    if not fields.get("from") and not fields.get("files"):
        return _progress(fields, [], "neither 'from' or 'files' was specified", status=400)
    parameters = tuple((fields.get("parameters") or {}).items())
    if fields.get("from"):
        base = simulation.catalog.find(fields["from"])
        if base is None:
            return _progress(fields, [{"status": "pulling manifest"}], "pull model manifest: file does not exist")
        made = replace(base, name=name, parameters=base.parameters + parameters, digest="")
    else:
        missing = [digest for digest in fields["files"].values() if digest not in simulation.blobs]
        if missing:
            return _progress(fields, [{"status": "parsing GGUF"}], f"blob {missing[0]} not found")
        weights = next(iter(fields["files"].values())).removeprefix("sha256:")
        made = SimulatedModel(name, (COMPLETION,), parameters=parameters, weights=weights, modified_at=_now())
    statuses = [{"status": "gathering model components"}]
    statuses += [{"status": f"using existing layer sha256:{made.weights}"}, {"status": "writing manifest"}]
    return _progress(fields, statuses, finish=lambda: simulation.catalog.add(replace(made, modified_at=_now())))


async def copy(simulation: Simulation, request: web.Request, body: bytes) -> Reply:
    fields = requests.COPY.decode(body)
    source, destination = fields.get("source", ""), fields.get("destination", "")
    for role, name in (("source", source), ("destination", destination)):
        if not is_valid_name(name):
            raise ReplyError(400, f"{role} {go_json.encode(name).decode()} is invalid")
    model = simulation.catalog.find(source)
    if model is None:
        raise ReplyError(404, f"model {go_json.encode(source).decode()} not found")
    simulation.catalog.copy(model, destination, _now())
    return _NOTHING


async def delete(simulation: Simulation, request: web.Request, body: bytes) -> Reply:
    fields = requests.DELETE.decode(body)
    name = fields.get("model") or fields.get("name") or ""
    if not is_valid_name(name):
        raise ReplyError(400, f"name {go_json.encode(name).decode()} is invalid")
    model = simulation.catalog.find(name)
    if model is None:
        raise ReplyError(404, f"model '{name}' not found")
    simulation.catalog.remove(model)
    return _NOTHING


async def find_blob(simulation: Simulation, request: web.Request, body: bytes) -> Reply:
    digest = _digest(request)
    if digest in simulation.blobs:
        return _NOTHING
    return Reply(404, go_json.encode({"error": f"blob {go_json.encode(digest).decode()} not found"}), JSON)


async def make_blob(simulation: Simulation, request: web.Request, body: bytes) -> Reply:
    digest = _digest(request)
    if digest in simulation.blobs:
        return _NOTHING
    found = f"sha256:{hashlib.sha256(body).hexdigest()}"
    if found != digest:
        raise ReplyError(400, f'digest mismatch, expected "{digest}", got "{found}"')
    simulation.blobs.add(digest)
    return Reply(201, b"", None)


def _digest(request: web.Request) -> str:
    digest = request.match_info["digest"]
    if not _DIGEST.fullmatch(digest):
        raise ReplyError(400, "invalid digest format")
    return digest.replace("-", ":")


def _valid_name(fields: Mapping[str, Any]) -> str:
    name = str(fields.get("model") or fields.get("name") or "")
    if not name or not is_valid_name(name):
        raise ReplyError(400, "invalid model name")
    return name


def _layer(verb: str, model: SimulatedModel) -> Iterable[dict[str, Any]]:
    for part in (0, model.size // 2, model.size):
        progress = {"digest": f"sha256:{model.weights}", "total": model.size}
        yield {"status": f"{verb} {model.weights[:12]}", **progress, **({"completed": part} if part else {})}


def _progress(
    fields: Mapping[str, Any],
    statuses: list[dict[str, Any]],
    error: str | None = None,
    *,
    status: int = 500,
    finish: Callable[[], None] = lambda: None,
) -> Reply | Stream:
    """A stream of statuses, or only its last object. An error after the first status travels under 200 (2.2)."""
    last = {"status": "success"} if error is None else {"error": error}
    if fields.get("stream", True) and statuses:

        def closing() -> bytes:
            finish()
            return go_json.encode(last) + b"\n"

        lines = (go_json.encode(each) + b"\n" for each in statuses)
        return Stream(NDJSON, lines, closing, lambda message: go_json.encode({"error": message}) + b"\n")
    finish()
    return Reply(200 if error is None else status, go_json.encode(last), PLAIN_JSON)


def _now() -> str:
    return moment(time.time())
