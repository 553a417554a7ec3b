"""What stands around every request. aiohttp does not document ``UrlMappingMatchInfo.http_exception`` and
``AbstractStreamWriter.output_size``.

Errors become answers here, and nowhere else; and here is the access log.
"""

from __future__ import annotations

import logging
import re
from time import perf_counter

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from service.api.access.auth import identify
from service.api.access.caller import Caller
from service.api.access.request_log import LEFT, REQUEST_LOGGING
from service.api.context import METRICS
from service.api.http.cross_origin import add_cross_origin_headers
from service.api.http.failures import ERROR_SHAPES, Failure, failure_of_http, failure_of_ours
from service.errors import ServiceError

_log = logging.getLogger(__name__)

_TOKEN = re.compile(r"\btoken=[^&]*")
"""A browser's token stands in the address and opens what its key opens; it must not lie in a log."""


@web.middleware
async def around_handlers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What happens around every handler: the row in the log, who asks, errors as answers in the shape of their dialect,
    and the metrics. One function, since every coroutine around a handler costs each request.

    Only an error that nobody knows gets a traceback.
    """
    begun, app = perf_counter(), request.app
    # By route: the pattern, since there is no end of paths.
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    requests = app[REQUEST_LOGGING]
    logged = requests.begin(request, route)
    caller: Caller | None = None
    response: web.StreamResponse | None = None
    try:
        caller = identify(app, request)
        response = await handler(request)
    except ServiceError as error:
        response = _refusal(request, failure_of_ours(error) or _unknown(request, error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = _refusal(request, failure_of_http(error, request))
    except web.RequestPayloadError as error:
        response = _refusal(request, Failure(400, f"the body could not be read: {error}"))
    except Exception as error:
        if isinstance(error, ConnectionError) and request.transport is None:
            # The client is gone: nobody reads this, and nothing is wrong with us.
            response = web.Response(status=LEFT)
        else:
            response = _refusal(request, _unknown(request, error))
    finally:
        if logged is not None:
            requests.end(logged, caller, LEFT if response is None else response.status, begun)
        status = 500 if response is None else response.status
        app[METRICS].answered(route, request.method, status, perf_counter() - begun)
    return response


def _refusal(request: web.Request, failure: Failure) -> web.Response:
    response = request.app[ERROR_SHAPES].find(request.path)(failure)
    if request.match_info.http_exception is not None:
        # aiohttp-cors has no route for these (404, 405), and a browser shows an answer without the headers to nobody.
        add_cross_origin_headers(request, response)
    return response


def _unknown(request: web.Request, error: Exception) -> Failure:
    if request.writer.output_size > 0:
        # Too late for an answer: aiohttp logs it and closes the connection, so that nobody takes half for whole.
        raise error
    _log.error("%s %s failed by an error of ours", request.method, request.path, exc_info=error)
    return Failure(500, "internal error: the log of the service says more")


class NoHttpFilter(logging.Filter):
    """What is no HTTP is the sender's fault: aiohttp answers 400, and one line without a traceback says so."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.msg, record.args = "refused what is no HTTP: %s", (type(error).__name__,)
            record.exc_info = record.exc_text = None
        return True


NO_HTTP = NoHttpFilter()
"""One for the process: a logger takes the same filter only once."""


class AccessLogger(AbstractAccessLogger):
    """One line a request: who, what, status, bytes, milliseconds."""

    @property
    def enabled(self) -> bool:
        return self.logger.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        # path_qs is still percent-encoded: nobody can write lines of their own into the log.
        self.logger.info(
            "%s %s %s %d %d %.1fms",
            request.remote or "-",
            request.method,
            _TOKEN.sub("token=…", request.path_qs),
            response.status,
            response.body_length,
            time * 1000,
        )
