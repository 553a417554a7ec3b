"""Addresses as they may be logged: what opens something is left out."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

_SECRETS = frozenset({"token", "access_token", "key", "api_key", "apikey", "x-api-key", "auth", "authorization"})
"""Parameters whose values open something, in lower case: a browser's token, which we read, and where callers put their
keys by mistake.
"""
_SEPARATOR = re.compile(r"([?&;]|%3[fb]|%26)", re.IGNORECASE)
_EQUALS = re.compile(r"=|%3d", re.IGNORECASE)


def redacted(address: str) -> str:
    """The path and query without the values of secrets, however a parameter's name is written and separated."""
    if "=" not in address and "%3" not in address:
        return address
    return "".join(map(_without_secret, _SEPARATOR.split(address)))


def _without_secret(part: str) -> str:
    equals = _EQUALS.search(part)
    if equals is None:
        return part
    is_secret = unquote_plus(part[: equals.start()]).strip().lower() in _SECRETS
    return f"{part[: equals.end()]}…" if is_secret else part
