"""What stands around every request. aiohttp does not document ``AbstractStreamWriter.output_size``.

Errors become answers here and nowhere else. The access log is here, too.
"""

from __future__ import annotations

import logging
import re
from time import perf_counter

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.typedefs import Handler

from service.api.access.auth import identify
from service.api.access.caller import CALLER, Caller
from service.api.access.request_id import UNREAD, request_id_of
from service.api.access.request_log import LEFT, LOGGED_REQUEST, REQUEST_LOGGING
from service.api.context import BODY_ROOM, METRICS
from service.api.http.failures import Failure, failure_of_http, failure_of_ours, shaped
from service.api.http.receiving import throw_rest_away
from service.api.http.unrouted import FIND_UNROUTED, is_unrouted
from service.errors import ServiceError

_log = logging.getLogger(__name__)

_TOKEN = re.compile("".join(f"(?:{letter}|%{ord(letter):x})" for letter in "token") + "=[^&]*", re.IGNORECASE)
"""A browser's token in an address, however its name is written. It opens what its key opens, so it must not be logged.
"""


@web.middleware
async def around_handlers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What happens around every handler: the caller is identified, errors become answers in the shape of their dialect,
    and the request is logged and measured. It is one function, since each coroutine more costs every request.

    Only an unknown error gets a traceback.
    """
    begun, app = perf_counter(), request.app
    # Measured by the route's pattern, since there is no end of paths.
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    requests = app[REQUEST_LOGGING]
    logged = requests.begin(request, route)
    caller: Caller | None = None
    response: web.StreamResponse | None = None
    try:
        caller = identify(app, request)
        if caller is None and is_unrouted(request, handler):
            handler = await app[FIND_UNROUTED](request) or handler
            caller, logged = request.get(CALLER), request.get(LOGGED_REQUEST)
        response = await handler(request)
    except ServiceError as error:
        response = shaped(request, failure_of_ours(error) or _unknown(request, error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = shaped(request, failure_of_http(error, request))
    except web.RequestPayloadError as error:
        response = shaped(request, Failure(400, f"the body could not be read: {error}"))
    except Exception as error:
        if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            # The client is gone or about to be, which is no error of ours; nobody reads this reply.
            response = web.Response(status=LEFT)
        else:
            response = shaped(request, _unknown(request, error))
    finally:
        app[BODY_ROOM].release(request)
        if logged is not None:
            requests.end(logged, caller, LEFT if response is None else response.status, begun)
        status = 500 if response is None else response.status
        app[METRICS].answered(route, request.method, status, perf_counter() - begun)
    if not request.content.is_eof():
        await throw_rest_away(request, response)
    return response


def _unknown(request: web.Request, error: Exception) -> Failure:
    if request.writer.output_size > 0:
        # It is too late for an answer. aiohttp logs the error and closes the connection, so that no client takes half a
        # reply for a whole one.
        raise error
    _log.error("%s %s failed by an error of ours", request.method, request.path, exc_info=error)
    return Failure(500, "internal error: the log of the service says more")


class AccessLogger(AbstractAccessLogger):
    """One line a request: who, what, status, bytes, milliseconds."""

    @property
    def enabled(self) -> bool:
        return self.logger.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        # path_qs is still percent-encoded, so that nobody can write lines of their own into the log.
        request_id = request_id_of(request) or request.get(UNREAD)
        self.logger.info(
            "%s %s %s %d %d %.1fms%s",
            request.remote or "-",
            request.method,
            _TOKEN.sub("token=…", request.path_qs),
            response.status,
            response.body_length,
            time * 1000,
            "" if request_id is None else f" {request_id}",
        )
