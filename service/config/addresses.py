"""Addresses as people write them in the configuration: where to listen, an Ollama's URL, a database's."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qsl, urlencode, urlsplit

_DRIVER = re.compile(r"^(postgres(?:ql)?)\+\w+://")
"""SQLAlchemy writes the driver's name behind the database's."""
_SQLITE = re.compile(r"^sqlite(?:\+\w+)?://(.*)$")
_PLACE = re.compile(r"(\[[^]]*\]|[^:]*)(:\d*)?")
"""A host and its port, both of which may be left out."""
_UNESCAPED = (
    'write "postgresql://user:password@host/name", with %2F for / in the password, %3F for ?, %23 for #, %40 for @, '
    "%5B for [ and %25 for %"
)
_SQLALCHEMY_SSL = {"true": "require", "false": "disable"}
LOOPBACK = ("127.0.0.1", "::1")
EVERY_ADDRESS = ("0.0.0.0", "::")
_NAMED = {"localhost": LOOPBACK, "*": EVERY_ADDRESS}
"""What a name means, whatever the machine's table of hosts says: clients of "localhost" may try either."""


def listened_hosts(value: object) -> object:
    """The addresses to listen on, from one, a list, or a text that holds several with commas between or as JSON.

    Raises ValueError for an empty one.
    """
    if isinstance(value, str):
        value = _listed(value)
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise ValueError('write an address, or a list of them such as ["127.0.0.1", "::1"]')
    names = [one.strip().removeprefix("[").removesuffix("]") for one in value]
    if not names or not all(names):
        raise ValueError('write an address, such as "127.0.0.1", or leave it out for all of this machine\'s')
    return tuple(dict.fromkeys(host for name in names for host in _NAMED.get(name.lower(), (name,))))


def _listed(text: str) -> object:
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            # An IPv6 address may stand in brackets, as in a URL.
            pass
    return text.split(",")


def server_url(value: str) -> str:
    """The base of an Ollama server's URL, also when a path such as ``/api/generate`` or ``/v1`` is given with it.

    Raises ValueError for what is no such URL.
    """
    parts = urlsplit(value.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError('write a whole URL, such as "http://127.0.0.1:11434"')
    if parts.username is not None or "@" in parts.path:
        raise ValueError("leave name and password out of the URL and send them in the backend's headers")
    if parts.query or parts.fragment:
        raise ValueError("leave out everything after the path")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("the port is a number from 0 to 65535") from None
    path = re.sub(r"/(api|v1)(/.*)?$", "", parts.path).rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def database_url(value: str) -> str:
    """A PostgreSQL URL as its driver here reads it, from that or from SQLAlchemy's form
    (``postgresql+asyncpg://…?ssl=require``); "" for SQLite. Raises ValueError for anything else.
    """
    if not value:
        return value
    url = _DRIVER.sub(r"\1://", value)
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError(
            'write "postgresql://user:password@host/name", or "sqlite:///data/queue.db", or leave it empty for SQLite'
        )
    _check_places(url)
    if url == value or "?" not in url:
        return url
    base, _, query = url.partition("?")
    fields = [
        ("sslmode", _SQLALCHEMY_SSL.get(said.lower(), said)) if name == "ssl" else (name, said)
        for name, said in parse_qsl(query, keep_blank_values=True)
    ]
    return f"{base}?{urlencode(fields)}"


def _check_places(url: str) -> None:
    """Raise ValueError for a PostgreSQL URL whose password is not escaped. A part of it would be taken for the host,
    the port or the name of the database, and they are logged.
    """
    try:
        parts = urlsplit(url)
        parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        parts = None
    if parts is None or not all(map(_PLACE.fullmatch, parts.netloc.rpartition("@")[2].split(","))):
        raise ValueError(_UNESCAPED)
    rest = f"{parts.path}#{parts.fragment}" if "@" in parts.netloc else url.partition("://")[2]
    if "@" in rest or parts.fragment:
        raise ValueError(_UNESCAPED)


def sqlite_path(url: str) -> str | None:
    """The file that SQLAlchemy's form of an SQLite URL names: ``sqlite:///data/queue.db`` from the working directory,
    ``sqlite:////srv/queue.db`` from the root. None for a URL of something else.

    Raises ValueError where no file is named.
    """
    found = _SQLITE.match(url)
    if found is None:
        return None
    path = found[1]
    if not path.startswith("/") or path in ("/", "/:memory:") or "?" in path:
        raise ValueError('write the path of a file behind three slashes, such as "sqlite:///data/queue.db"')
    return path[1:]
