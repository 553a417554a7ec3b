"""Short-lived signed tokens for browsers, whose websockets and EventSources cannot send a key in a header."""

from __future__ import annotations

from typing import Any, NamedTuple

import jwt

from service.clock import Clock
from service.errors import UnauthenticatedError
from service.key import Key
from service.keys.keyring import Keyring

_ALGORITHM = "HS256"
_AUDIENCE = "corral"
_KEY_TAG = "key"
_USER = "user"


class Token(NamedTuple):
    """A signed token and when it ends (milliseconds since the epoch)."""

    text: str
    expires_at: int


class Holder(NamedTuple):
    """Who has shown a key or a token."""

    key: Key
    user: str | None
    """The person behind the key, whom its request names, or for whom the token was bought; "" has no name, and None
    names nobody.
    """
    expires_at: int | None
    """When the token ends (milliseconds since the epoch); None for a key."""


class BrowserTokens:
    """Makes tokens for keys and reads them; ``minutes`` is how long one is good."""

    def __init__(self, keys: Keyring, clock: Clock, minutes: float) -> None:
        self._keys = keys
        self._clock = clock
        self._lifetime_ms = int(minutes * 60_000)
        self._secret = keys.derived_secret("browser tokens")

    def make(self, key: Key, user: str | None) -> Token:
        """A token that stands for this key and the person behind it, and never outlives the key."""
        now = self._clock.now_ms()
        expires_at = min(now + self._lifetime_ms, key.expires_at or now + self._lifetime_ms)
        claims: dict[str, Any] = {"sub": key.id, "aud": _AUDIENCE, "iat": now / 1000, "exp": expires_at / 1000}
        claims[_KEY_TAG] = self._keys.tag_of(key)
        if user is not None:
            claims[_USER] = user
        return Token(jwt.encode(claims, self._secret, algorithm=_ALGORITHM), expires_at)

    def read(self, text: str) -> Holder | None:
        """Whom a token stands for; None for a text that is no token of ours.

        Raises UnauthenticatedError for a token that has expired, or whose key has another text now, as a demo key may.
        Whether the key is still good is not checked here.
        """
        if text.count(".") != 2:
            return None
        try:
            # The times are checked below by our own clock, which never goes back when the wall clock is set back.
            claims = jwt.decode(
                text,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": ["sub", "exp"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            return None
        key = self._keys.get(claims["sub"])
        if key is None:
            return None
        expires_at = int(claims["exp"] * 1000)
        if expires_at <= self._clock.now_ms():
            raise UnauthenticatedError("this token has expired; trade the key for another at POST /api/token")
        if claims.get(_KEY_TAG) != self._keys.tag_of(key):
            raise UnauthenticatedError("this token has ended with the key it was bought with; trade the key of today")
        return Holder(key, claims.get(_USER), expires_at)
