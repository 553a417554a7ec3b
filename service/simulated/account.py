"""What has to do with ollama.com, where nobody has signed this server in and the cloud is off: status, account,
recommendations, search (wire contract 1.1).
"""

from __future__ import annotations

from aiohttp import web

from service.simulated.errors import ReplyError
from service.simulated.simulation import Simulation
from service.simulated.wire import Reply, json_reply

_SIGN_IN = "https://ollama.com/connect?name=simulated&key=c2ltdWxhdGVk"
_RECOMMENDED = (
    ("kimi-k2.6:cloud", "State-of-the-art coding", 262_144, 262_144),
    ("glm-5.1:cloud", "Reasoning and code generation", 202_752, 131_072),
)


async def status(simulation: Simulation, request: web.Request, body: bytes) -> Reply:
    return json_reply({"cloud": {"disabled": True, "source": "env"}})


async def account(simulation: Simulation, request: web.Request, body: bytes) -> Reply:
    return json_reply({"error": "unauthorized", "signin_url": _SIGN_IN}, 401)


async def sign_out(simulation: Simulation, request: web.Request, body: bytes) -> Reply:
    """Also by the key's name, which nobody reads."""
    raise ReplyError(401, "you are not currently signed in")


async def recommendations(simulation: Simulation, request: web.Request, body: bytes) -> Reply:
    """The list that is built in, as nothing newer can be fetched."""
    return json_reply(
        {
            "recommendations": [
                {"model": model, "description": words, "context_length": context, "max_output_tokens": most}
                for model, words, context, most in _RECOMMENDED
            ]
        }
    )


async def search(simulation: Simulation, request: web.Request, body: bytes) -> Reply:
    return _refused(body, "web search is unavailable")


async def fetch(simulation: Simulation, request: web.Request, body: bytes) -> Reply:
    return _refused(body, "web fetch is unavailable")


def _refused(body: bytes, what: str) -> Reply:
    if not body.strip():
        raise ReplyError(400, "missing request body")
    raise ReplyError(403, f"ollama cloud is disabled: {what}")
