"""The simulated Ollama as an aiohttp application: every route of Ollama's that Corral has, and those of its control."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web

from service.simulated import account, control, decisions, embeddings, generation, images, listings, management
from service.simulated.anthropic import read_messages
from service.simulated.native import read_chat, read_generate
from service.simulated.openai import read_chat_completion, read_completion
from service.simulated.responses import read_responses
from service.simulated.routes import Inform, Read, form_work, information, unknown_route, work
from service.simulated.settings import SimulatedSettings
from service.simulated.simulation import SIMULATION, Simulation
from service.simulated.transcriptions import read_transcription
from service.simulated.versions import Behaviour

_LARGEST_BODY = 1 << 30
_DECISIONS = "/v1/systemone"
_TRANSCRIPTIONS = "/v1/audio/transcriptions"

_INFORMATION: tuple[tuple[str, str, Inform], ...] = (
    ("GET HEAD", "/", listings.root),
    ("GET HEAD", "/api/version", listings.version),
    ("GET", "/api/status", account.status),
    ("POST", "/api/me", account.account),
    ("POST", "/api/signout", account.sign_out),
    ("DELETE", "/api/user/keys/{key}", account.sign_out),
    ("POST", "/api/experimental/web_search", account.search),
    ("POST", "/api/experimental/web_fetch", account.fetch),
    ("GET", "/api/experimental/model-recommendations", account.recommendations),
    ("GET HEAD", "/api/tags", listings.tags),
    ("GET", "/api/ps", listings.loaded),
    ("POST", "/api/show", listings.show),
    ("POST", "/api/pull", management.pull),
    ("POST", "/api/push", management.push),
    ("POST", "/api/create", management.create),
    ("POST", "/api/copy", management.copy),
    ("DELETE", "/api/delete", management.delete),
    ("HEAD", "/api/blobs/{digest}", management.find_blob),
    ("POST", "/api/blobs/{digest}", management.make_blob),
    ("GET", "/v1/models", listings.openai_models),
    ("GET", "/v1/models/{model}", listings.openai_model),
)


def _words(behaviour: Behaviour) -> tuple[tuple[str, Read[generation.Call]], ...]:
    return (
        ("/api/generate", read_generate),
        ("/api/chat", read_chat),
        ("/v1/chat/completions", partial(read_chat_completion, behaviour=behaviour)),
        ("/v1/completions", read_completion),
        ("/v1/responses", partial(read_responses, behaviour=behaviour)),
        ("/v1/messages", read_messages),
    )


_VECTORS = (
    ("/api/embed", embeddings.read_embed),
    ("/api/embeddings", embeddings.read_embeddings),
    ("/v1/embeddings", embeddings.read_embedding_list),
)


_IMAGES = (("/v1/images/generations", images.read_generation), ("/v1/images/edits", images.read_edit))


def build_simulated_app(settings: SimulatedSettings | None = None) -> web.Application:
    """A simulated Ollama; its state is `app[SIMULATION]`. Raises ValueError where the version is none.

    Serve it with `handler_cancellation=True` (SimulatedServer does): a client that leaves must end its request.
    """
    app = web.Application(client_max_size=_LARGEST_BODY)
    app[SIMULATION] = simulation = Simulation(settings or SimulatedSettings())
    behaviour = simulation.settings.behaviour
    app.cleanup_ctx.append(_scheduler)
    app.on_response_prepare.append(_unsign)
    known: dict[str, set[str]] = {}
    for methods, path, inform in _INFORMATION:
        for method in methods.split():
            app.router.add_route(method, path, information(path, inform))
            known.setdefault(path, set()).add(method)
    for path, read in _words(behaviour):
        app.router.add_post(path, work(path, read, generation.serve))
        known[path] = {"POST"}
    for path, read_vectors in _VECTORS:
        app.router.add_post(path, work(path, read_vectors, embeddings.serve))
        known[path] = {"POST"}
    app.router.add_post(_TRANSCRIPTIONS, form_work(_TRANSCRIPTIONS, read_transcription, generation.serve))
    known[_TRANSCRIPTIONS] = {"POST"}
    for path, read_image in _IMAGES if behaviour.draws_images else ():
        app.router.add_post(path, work(path, read_image, images.serve))
        known[path] = {"POST"}
    if behaviour.has_system_one:
        app.router.add_post(_DECISIONS, work(_DECISIONS, decisions.read_decision, decisions.serve))
        known[_DECISIONS] = {"POST"}
    for path in simulation.settings.later_paths:
        app.router.add_route("*", path, information(path, listings.later))
    app.router.add_routes(control.ROUTES)
    app.router.add_route("*", "/{path:.*}", unknown_route({path: frozenset(each) for path, each in known.items()}))
    return app


async def _scheduler(app: web.Application) -> AsyncIterator[None]:
    simulation = app[SIMULATION]
    loop = asyncio.create_task(simulation.scheduler.run())
    yield
    loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loop
    simulation.scheduler.forget_all()


async def _unsign(request: web.Request, response: web.StreamResponse) -> None:
    """Ollama does not say what serves it."""
    response.headers.popall("Server", None)
