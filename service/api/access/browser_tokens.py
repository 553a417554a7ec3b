"""Short-lived signed tokens for browsers, whose websockets and EventSources cannot send a key in a header."""

from __future__ import annotations

from typing import NamedTuple

import jwt

from service.clock import Clock
from service.errors import UnauthenticatedError
from service.key import Key
from service.keys.keyring import Keyring

_ALGORITHM = "HS256"
_AUDIENCE = "corral"


class Token(NamedTuple):
    """A signed token and when it ends (milliseconds since the epoch)."""

    text: str
    expires_at: int


class BrowserTokens:
    """Makes tokens for keys and reads them; ``minutes`` is how long one is good."""

    def __init__(self, keys: Keyring, clock: Clock, minutes: float) -> None:
        self._keys = keys
        self._clock = clock
        self._lifetime_ms = int(minutes * 60_000)
        self._secret = keys.derived_secret("browser tokens")

    def make(self, key: Key) -> Token:
        """A token that stands for this key, and never outlives it."""
        now = self._clock.now_ms()
        expires_at = min(now + self._lifetime_ms, key.expires_at or now + self._lifetime_ms)
        claims = {"sub": key.id, "aud": _AUDIENCE, "iat": now / 1000, "exp": expires_at / 1000}
        return Token(jwt.encode(claims, self._secret, algorithm=_ALGORITHM), expires_at)

    def read(self, text: str) -> tuple[Key, int] | None:
        """The key that a token stands for and when the token ends; None for a text that is no token of ours.

        Raises UnauthenticatedError for a token that has expired. Whether the key is still good is not checked here.
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
        return key, expires_at
