"""Paths that nobody here knows, and a newer Ollama may: relayed to one backend, past the queue, for those who may.

An admin may. With ``server.pass_unknown`` every key may, where nothing names a model, since what a call does to one is
not known, and where no account at ollama.com is used. For everybody else there is nothing (404), as with an Ollama that
does not have the path. Of one path it is known what it is for: whoever may use a model may have its tokens counted.
"""

from __future__ import annotations

import asyncio
import logging
import posixpath
import re
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import unquote, unquote_plus

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from service import go_json
from service.api.access.admission import count, require_model
from service.api.access.auth import AUTH
from service.api.access.caller import CALLER, Caller
from service.api.access.request_log import REQUEST_LOGGING, keep_count
from service.api.context import CONFIG, POOL
from service.api.dropin.managing import relay_for_admin
from service.api.dropin.passing import first_answering, pass_on, pass_to_first
from service.api.dropin.reading import check_names, read_large_call
from service.api.http.bodies import read_json
from service.api.http.failures import ERROR_SHAPES, problem
from service.api.http.holding_back import hold_back
from service.api.http.redaction import redacted
from service.errors import InvalidRequestError, NoBackendError, UnauthenticatedError, UnknownKeyError
from service.job import model_key

_log = logging.getLogger(__name__)

_OLLAMAS = re.compile(r"/(?:api|v1)(?:/[0-9A-Za-z_.:@~+,=-]+)+")
"""Decoded, so that nobody reads it in another way. Names of routes and models, digests and ids are such."""
_LONGEST = 600
_COUNTING = "/v1/messages/count_tokens"
"""Anthropic's clients ask there, and estimate where they get 404, as they do from every Ollama so far."""
_METHODS = frozenset({"GET", "HEAD", "POST"})
"""Of keys that are no admin's: the others change what is there."""
_MODEL = "model"
_NAMES = frozenset({"name", "from", "source", "destination", "alias", "target"})
"""Fields of a body, or of a query, in which Ollama's requests name a model, beside those whose own names have the word
in them. Deeper in a body only those do.
"""
_ACCOUNT = frozenset({"user", "signin", "signout", "web_search", "web_fetch"})
"""Steps of paths that act with a backend's account at ollama.com, as the known ones do, which are for admins."""
_FIELD_ENDS = re.compile("[&;]")
"""Some servers end a query's fields by the one, and some by both."""
_MOST_STEPS = 4
"""Of a path, in the name of a model: a host, and what Ollama's longest has behind it."""
_LOOKED_AT_ONCE = 1_000
"""Values of a body."""
_MOST_NOTED = 200

NOTED = web.AppKey("noted_unknown_paths", set[str])
"""The paths of which the log has told."""
RELAYED = web.AppKey("relayed_unknown", asyncio.Semaphore)
"""The bound on calls of others than admins that are under way. They may be slow, and hold up no refusals."""


async def find_unknown(request: web.Request) -> Handler | None:
    """Who answers at a path without a route; None for a path of ours or nobody's, and for a caller that may not have
    it. The request then has its caller, and a row in the log unless that is an admin, as with the routes of models.
    """
    path = await _unknown_path(request)
    caller = await _caller_of(request, path) if path is not None else None
    if path is None or caller is None:
        return None
    query = request.rel_url.raw_query_string
    target = f"{path}?{query}" if query else path
    if caller.is_admin:
        handler: Handler = partial(_relay_for_admin, path=path, target=target)
    elif _is_counting(request, path):
        handler = _count_tokens
    elif request.method in _METHODS and not await _is_for_admins(request, path):
        handler = partial(_relay_for_user, path=path, target=target)
        request.app[REQUEST_LOGGING].begin_row(request, path)
    else:
        return None
    request[CALLER] = caller
    return handler


async def _unknown_path(request: web.Request) -> str | None:
    """The path as a backend reads it, without needless parts; None where it is none of Ollama's, or one that is known
    here with whichever method and in whichever case.
    """
    try:
        path = posixpath.normpath(unquote(request.rel_url.raw_path, errors="strict"))
    except UnicodeDecodeError:
        return None
    if request.method == "OPTIONS" or len(path) > _LONGEST or not _OLLAMAS.fullmatch(path):
        return None
    shapes, router = request.app[ERROR_SHAPES], request.app.router
    for spelling in {path, path.lower()}:
        found = await router.resolve(request.clone(rel_url=URL.build(path=spelling)))
        is_ours = shapes.find(spelling) is problem
        if is_ours or not isinstance(found.http_exception, web.HTTPNotFound):
            return None
    return path


async def _caller_of(request: web.Request, path: str) -> Caller | None:
    """The caller, if it may have this path."""
    try:
        caller = request.app[AUTH].caller_of(request)
    except UnknownKeyError:
        await hold_back(request)
        return None
    except UnauthenticatedError:
        return None
    may_pass = caller.key is not None and request.app[CONFIG].server.pass_unknown
    return caller if caller.is_admin or may_pass or _is_counting(request, path) else None


def _is_counting(request: web.Request, path: str) -> bool:
    return path == _COUNTING and request.method == "POST"


async def _is_for_admins(request: web.Request, path: str) -> bool:
    """Whether the address names a model, or a path that acts with a backend's account."""
    steps = path.split("/")[2:]
    if not _ACCOUNT.isdisjoint(step.lower() for step in steps):
        return True
    installed = await _installed(request)
    # A name may have slashes.
    ends = range(1, _MOST_STEPS + 1)
    texts = ["/".join(steps[first : first + end]) for first in range(len(steps)) for end in ends]
    for field in _FIELD_ENDS.split(request.rel_url.raw_query_string):
        name, _, value = map(unquote_plus, field.partition("="))
        texts += name, value
        if _is_for_a_model(name) or go_json.fold(name) in _NAMES:
            return True
    return any(model_key(text) in installed for text in texts)


def _is_for_a_model(name: str) -> bool:
    """Whether a field of this name is for a model, or for several, or for what is one's."""
    return _MODEL in go_json.fold(name)


async def _installed(request: web.Request) -> set[str]:
    """The keys of all models that the backends have, those too that the configuration does not let us use. They are
    asked again, since one may be new.
    """
    pool = request.app[POOL]
    await pool.catalogue.refresh()
    lists = (backend.installed_list.last_told for backend in pool)
    return {model_key(model.name) for last in lists if last is not None for model in last.models}


async def _relay_for_admin(request: web.Request, path: str, target: str) -> web.StreamResponse:
    _note(request, path)
    return await relay_for_admin(request, target)


async def _relay_for_user(request: web.Request, path: str, target: str) -> web.StreamResponse:
    """Relay an object, or a call without a body. Raises HTTPNotFound for one that names a model, InvalidRequestError
    for anything else and for what could be read in two ways, LimitReachedError and NoBackendError.
    """
    body = await read_json(request)
    if body:
        fields = await read_large_call(body, "missing request body")
        if not body.lstrip(b" \t\r\n").startswith(b"{"):
            raise InvalidRequestError("the body must be a JSON object, such as {…}")
        if await _names_a_model(request, fields):
            raise web.HTTPNotFound
    count(request)
    _note(request, path)
    async with request.app[RELAYED]:
        response = await pass_on(request, target, body or None, await first_answering(request))
    keep_count(request)
    return response


async def _count_tokens(request: web.Request) -> web.StreamResponse:
    """Ask a backend that has the model. Raises ForbiddenError for a model that the caller's key may not use, and
    HTTPNotFound for one that nobody may use, and where nobody answers.
    """
    body = await read_json(request)
    model = (await read_large_call(body, "EOF")).get("model")
    named = model if isinstance(model, str) else None
    catalogue = request.app[POOL].catalogue
    if named is not None:
        require_model(request, named)
        if not await catalogue.look_for(named) and catalogue.hides(named):
            raise web.HTTPNotFound
    _note(request, _COUNTING)
    try:
        async with request.app[RELAYED]:
            return await pass_to_first(request, _COUNTING, body, named)
    except NoBackendError:
        raise web.HTTPNotFound from None


async def _names_a_model(request: web.Request, fields: dict[str, Any]) -> bool:
    """Whether the body has a field for a model's name, or anywhere the name of one that is there, also as a field's.
    Others have their turn in between. Raises InvalidRequestError for a name that occurs twice in an object, since any
    may be a struct.
    """
    installed = await _installed(request)
    for index, (name, value) in enumerate(_values(fields)):
        if _is_for_a_model(name):
            return True
        texts = (name, value) if isinstance(value, str) else (name,)
        if any(text and len(text) <= _LONGEST and model_key(text) in installed for text in texts):
            return True
        if index % _LOOKED_AT_ONCE == _LOOKED_AT_ONCE - 1:
            await asyncio.sleep(0)
    return not _NAMES.isdisjoint(fields)


def _values(fields: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value within, with its name in an object, or "" in an array. Raises InvalidRequestError, as above."""
    waiting: list[Any] = [fields]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            check_names(one, "the body")
        for name, value in one.items() if isinstance(one, dict) else (("", value) for value in one):
            yield name, value
            if isinstance(value, dict | list):
                waiting.append(value)


def _note(request: web.Request, path: str) -> None:
    """Tell the log once of each path, and of so many."""
    noted = request.app[NOTED]
    if path in noted or len(noted) > _MOST_NOTED:
        return
    noted.add(path)
    if len(noted) > _MOST_NOTED:
        _log.info("further paths that are not known here are relayed, and no longer named")
    else:
        _log.info("%s %s: the path is not known here, and relayed to a backend", request.method, redacted(path))
