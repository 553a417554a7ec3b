"""What HTTP knows and this service does not serve: codings of a transfer, expectations, versions."""

from __future__ import annotations

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.typedefs import Handler


def is_unusual(request: web.BaseRequest) -> bool:
    """Whether ``unserved`` has to be asked. It is quick, since every request is asked it."""
    headers = request.headers
    return hdrs.TRANSFER_ENCODING in headers or hdrs.EXPECT in headers or request.version is not HttpVersion11


def unserved(request: web.BaseRequest) -> Handler | None:
    """A handler that refuses the request (RFC 9110, 10.1.1 and 15.6; RFC 9112, 6.1); None for one that is served."""
    coding = request.headers.get(hdrs.TRANSFER_ENCODING, "chunked")
    expected = request.headers.get(hdrs.EXPECT, "100-continue")
    if request.version not in (HttpVersion10, HttpVersion11):
        return _refusing(web.HTTPVersionNotSupported(text="only HTTP/1.1 and HTTP/1.0 are served"))
    if coding.strip().lower() != "chunked":
        return _refusing(web.HTTPNotImplemented(text="Transfer-Encoding: only chunked is served"))
    if expected.strip().lower() != "100-continue":
        return _refusing(web.HTTPExpectationFailed(text="Expect: only 100-continue is known"))
    return None


def _refusing(error: web.HTTPException) -> Handler:
    async def refuse(_request: web.Request) -> web.StreamResponse:
        raise error

    return refuse
