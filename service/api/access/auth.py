"""Who is asking: the caller of each request, found by a key, by a token or by its address. aiohttp does not document
``UrlMappingMatchInfo.http_exception``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from aiohttp import hdrs, web
from multidict import istr

from service.api.access.browser_tokens import BrowserTokens, Holder
from service.api.access.caller import CALLER, Caller
from service.api.access.client_address import ClientAddresses
from service.api.access.request_id import request_id_of
from service.audit import Actor, ActorKind, Audit
from service.clock import Clock
from service.config import Config
from service.errors import ForbiddenError, InvalidRequestError, UnauthenticatedError, UnknownKeyError
from service.key import LONGEST_USER, Key, Role, owner_of_key
from service.keys.keyring import Keyring
from service.keys.rate_limits import RateLimits

_API_KEY = istr("X-Api-Key")

OPEN_PATHS = web.AppKey("open_paths", frozenset[str])
"""The routes, as they were registered, that need no key: pages, which ask for one later, and what monitors read."""
TOKEN_PATHS = frozenset({"/api/v1/prompt/{id}/stream"})
"""The routes that take a browser's token in the query; the websocket looks for it itself."""
_WEBSOCKET = "/api/v1/ws"

_KEY_NEEDED = (
    "an API key is needed, and none that is known here was sent; send it as Authorization: Bearer … or as x-api-key"
)
_NOT_LIMITED: Mapping[str, str] = {}
_ADMIN_SOCKET = Caller("admin socket", None, Role.ADMIN, sees_all=True)


class Auth:
    """Finds out who is asking."""

    def __init__(self, keys: Keyring, rate_limits: RateLimits, clock: Clock, config: Config, audit: Audit) -> None:
        self.keys = keys
        self.rate_limits = rate_limits
        self.tokens = BrowserTokens(keys, clock, config.auth.token_minutes)
        self.is_required = config.auth.required
        self.addresses = ClientAddresses(config.server.trusted_proxies)
        self._audit = audit

    def caller_of(self, request: web.Request) -> Caller:
        """Who is asking. Raises UnauthenticatedError for a key or token that is revoked or expired, and where keys are
        required for one that is missing, and UnknownKeyError for one that is unknown: that also on open routes, since
        they show more to a key that is known.
        """
        try:
            shown = self._shown(request)
        except UnauthenticatedError:
            if _path_of(request) not in request.app[OPEN_PATHS]:
                raise
            return self.without_key(request)
        if shown is not None:
            return shown
        owner = self.addresses.owner_of(request)
        if not owner and is_admin_socket(request):
            return _ADMIN_SOCKET
        if self.is_required and _shows_something(request):
            self._note_failure(request, "unknown")
            raise UnknownKeyError(_KEY_NEEDED)
        return self.without_key(request)

    def without_key(self, request: web.Request) -> Caller:
        """The caller as one who has shown no key. Raises UnauthenticatedError where one is needed."""
        if self.is_required and not _is_open(request):
            raise UnauthenticatedError(_KEY_NEEDED)
        return _anonymous(self.addresses.owner_of(request), not self.is_required)

    def by_key(self, key: Key, request: web.Request) -> Caller:
        """The caller who has this key. Raises UnauthenticatedError when it is revoked or expired."""
        user = _user_of(request, key.owner_header) if key.owner_header is not None else None
        return self._holder(Holder(key, user, None), request)

    def require_good(self, key: Key | None) -> None:
        """Raises UnauthenticatedError when this key, with which a request began, has ended since then."""
        if key is not None:
            self.keys.check(self.keys.get(key.id) or key)

    def by_token(self, text: str, request: web.Request) -> Caller:
        """The caller who has this browser token, shown on a connection that ``request`` opened.

        Raises UnauthenticatedError, and UnknownKeyError where keys are required.
        """
        found = self._token(text, request)
        if found is None:
            self._note_failure(request, "unknown")
            kind = UnknownKeyError if self.is_required else UnauthenticatedError
            raise kind("this token is not one of ours; trade a key for one at POST /api/token")
        return self._holder(found, request)

    def _holder(self, holder: Holder, request: web.Request) -> Caller:
        key, user, expires_at = holder
        try:
            self.keys.check(key)
        except UnauthenticatedError:
            self._note_failure(request, "expired" if key.is_active else "revoked", holder)
            raise
        self.keys.note_use(key)
        sees_all = key.is_admin or not self.is_required
        return Caller(owner_of_key(key.id, user), key, key.role, sees_all, user, expires_at)

    def _shown(self, request: web.Request) -> Caller | None:
        """The caller by what it shows; None when it shows nothing, or nothing that is known."""
        headers = request.headers
        if hdrs.AUTHORIZATION not in headers and _API_KEY not in headers and not request.query_string:
            return None
        for text in _credentials(request):
            key = self.keys.find(text)
            if key is not None:
                return self.by_key(key, request)
            found = self._token(text, request)
            if found is not None:
                return self._holder(found, request)
        return None

    def _token(self, text: str, request: web.Request) -> Holder | None:
        try:
            return self.tokens.read(text)
        except UnauthenticatedError:
            self._note_failure(request, "token ended")
            raise

    def _note_failure(self, request: web.Request, reason: str, holder: Holder | None = None) -> None:
        by = None if holder is None else Actor(ActorKind.KEY, holder.key.id, holder.key.name, holder.user)
        self._audit.note_failed_sign_in(self.addresses.owner_of(request), reason, by)


AUTH = web.AppKey("auth", Auth)


def rate_limit_headers(request: web.Request) -> Mapping[str, str]:
    """How much of its rate limit the caller's key has left, in OpenAI's headers; none for a key without a limit."""
    try:
        key = request[CALLER].key
    except KeyError:
        return _NOT_LIMITED
    left = request.app[AUTH].rate_limits.left(key) if key is not None else None
    if left is None:
        return _NOT_LIMITED
    minutes, seconds = divmod(left.full_again_seconds, 60)
    return {
        "x-ratelimit-limit-requests": str(left.limit),
        "x-ratelimit-remaining-requests": str(left.remaining),
        "x-ratelimit-reset-requests": f"{minutes}m{seconds}s" if minutes else f"{seconds}s",
    }


def callers_headers(request: web.Request) -> Mapping[str, str]:
    """What every reply to this request tells its caller: its own name for it, and what its key has left."""
    request_id, limits = request_id_of(request), rate_limit_headers(request)
    return limits if request_id is None else {**limits, "x-request-id": request_id}


async def show_callers_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put them on a reply."""
    response.headers.update(callers_headers(request))


def identify(app: web.Application, request: web.Request) -> Caller | None:
    """The caller, which the handler then finds in ``request[CALLER]``; None where no handler of ours follows.

    Raises UnauthenticatedError; UnknownKeyError also where no key is needed.
    """
    if request.method == hdrs.METH_OPTIONS or request.match_info.http_exception is not None:
        return None
    caller = request[CALLER] = app[AUTH].caller_of(request)
    return caller


def require_admin(request: web.Request) -> Caller:
    """The caller, who is an admin. Raises UnauthenticatedError for the anonymous and ForbiddenError for others."""
    caller = request[CALLER]
    if caller.role is None:
        raise UnauthenticatedError(
            "an admin's API key is needed; the first is made by: python -m service keys create --role admin"
        )
    if not caller.is_admin:
        raise ForbiddenError("this needs an admin's API key")
    return caller


def has_sent_key(request: web.Request) -> bool:
    """Whether the caller shows a key or token where one is looked for, be it known or not."""
    return any(_credentials(request))


def _credentials(request: web.Request) -> Iterator[str]:
    headers = request.headers
    authorization = headers.get(hdrs.AUTHORIZATION)
    if authorization is not None:
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() == "bearer":
            yield text.strip()
    api_key = headers.get(_API_KEY)
    if api_key is not None:
        yield api_key.strip()
    token = _token_in_query(request)
    # Only tokens are read here, and no keys: addresses are logged by every proxy on the way.
    if token.count(".") == 2:
        yield token


def _token_in_query(request: web.Request) -> str:
    return request.query.get("token", "") if request.query_string and _path_of(request) in TOKEN_PATHS else ""


def _shows_something(request: web.Request) -> bool:
    """Whether there is a key or a token, whatever it is worth."""
    return any(_credentials(request)) or bool(_token_in_query(request))


def _path_of(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""


def _is_open(request: web.Request) -> bool:
    """Whether the route needs no key. A websocket's client may show one later, in a message."""
    path = _path_of(request)
    return path in request.app[OPEN_PATHS] or path == _WEBSOCKET


def is_admin_socket(request: web.BaseRequest) -> bool:
    """Whether it came so: only the service's own user can open the one Unix socket that it listens on."""
    transport = request.transport
    return transport is not None and isinstance(transport.get_extra_info("sockname"), str | bytes)


def _user_of(request: web.Request, header: str) -> str | None:
    """Whom the header names; "" where it is there and names nobody, who is not the front end either."""
    values = request.headers.getall(header, ())
    if len(values) > 1:
        # One of them may be the person's own, whom a proxy on the way names in the other.
        raise InvalidRequestError(f"{header}: occurs {len(values)} times; send it once", header)
    if not values:
        return None
    value = _text_of(values[0]).strip()
    if len(value) > LONGEST_USER:
        # Cut short, two persons could become one.
        raise InvalidRequestError(f"{header}: may have {LONGEST_USER} characters (got {len(value)})", header)
    return value


def _text_of(value: str) -> str:
    """A header's value, which may be written in UTF-8 or Latin-1. No two names become one."""
    if value.isascii():
        return value
    written = value.encode("utf-8", "surrogateescape")
    try:
        return written.decode()
    except UnicodeDecodeError:
        return written.decode("latin-1")


@lru_cache(maxsize=4096)
def _anonymous(owner: str, sees_all: bool) -> Caller:
    return Caller(owner, sees_all=sees_all)
