"""What may be assigned on a living client, and where a client finds its server, key and model."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar, overload
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from corral.errors import ConfigurationError

DEFAULT_URL = "http://localhost:8000"
OLLAMAS_MODEL = "llama3.2"
"""Asked for at a bare Ollama when nobody has said which; Corral has a default of its own."""
CONNECT_SECONDS = 5.0
_OLLAMAS = "chat|generate|embed|embeddings|tags|show|ps|version|pull|push|create|copy|delete"
_ENDPOINT = re.compile(rf"(/api/v1(/.*)?|/api(/({_OLLAMAS}))?|/v1(/.*)?)$")
"""The part of an address that belongs to the API and not to the server."""
_PORTS = {"http": 80, "https": 443}
_ONE_SLASH = re.compile(r"(https?):/(?!/)", re.IGNORECASE)
_PLACE = re.compile(r"(\[[^\[\]@]+\]|[^\[\]:\\<>\"{}|^`*,\x00-\x20\x7f]+)(:\d*)?")
"""Host and port, after a name and password."""

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = ("content-length", "transfer-encoding")
"""Headers that say where a request ends, which the HTTP library knows alone."""

T = TypeVar("T")


def is_number(value: object) -> bool:
    """Whether it is a finite number which a float can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def require_seconds(name: str, value: object) -> None:
    """Raises ConfigurationError for what is no number above 0."""
    _number(0, is_open=True)(name, value)


def _whole(least: int) -> Callable[[str, Any], int]:
    def read(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigurationError(f"{name} = {value!r}: give a whole number of at least {least}")
        return value

    return read


def _number(least: float, *, is_open: bool = False) -> Callable[[str, Any], float]:
    """``is_open``: the least itself is not allowed."""

    def read(name: str, value: Any) -> float:
        if not is_number(value) or value < least or (is_open and value == least):
            bound = f"{'above' if is_open else 'of at least'} {least:g}"
            raise ConfigurationError(f"{name} = {value!r}: give a number {bound}")
        return float(value)

    return read


def _model(name: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise ConfigurationError(f"{name} = {value!r}: give the name of a model, or None")


class _Value(Generic[T]):
    """A value that is checked when it is assigned."""

    def __init__(self, default: T, read: Callable[[str, Any], T]) -> None:
        self._default = default
        self._read = read

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> _Value[T]: ...
    @overload
    def __get__(self, instance: Settings, owner: type) -> T: ...
    def __get__(self, instance: Settings | None, owner: type) -> _Value[T] | T:
        if instance is None:
            return self
        value: T = instance.values.get(self._name, self._default)
        return value

    def __set__(self, instance: Settings, value: T) -> None:
        instance.values[self._name] = self._read(self._name, value)
        instance.changed()


class Settings:
    """The numbers by which a client works. Each is read when it is needed, so that an assignment holds from then on.

    Seconds, but for counts. Assigning a value that makes no sense raises ConfigurationError.
    """

    max_concurrent_requests = _Value(5, _whole(1))
    queue_size = _Value(100, _whole(0))
    max_retries = _Value(5, _whole(0))
    initial_retry_delay = _Value(1.0, _number(0))
    backoff_factor = _Value(2.0, _number(1))
    max_retry_delay = _Value(16.0, _number(0))
    failure_threshold = _Value(5, _whole(1))
    circuit_timeout = _Value(30.0, _number(0))
    timeout = _Value(300.0, _number(0, is_open=True))
    default_model: _Value[str | None] = _Value(None, _model)

    def __init__(self, changed: Callable[[], None]) -> None:
        self.values: dict[str, Any] = {}
        self.changed = changed

    def take(self, metadata: Mapping[str, Any], **given: Any) -> None:
        """What a constructor was given, else what its ``metadata`` says."""
        for name, value in given.items():
            chosen = metadata.get(name) if value is None else value
            if chosen is not None:
                setattr(self, name, chosen)


class Address(NamedTuple):
    """Where the server is. ``url`` is without the name and password that an address may hold."""

    url: str
    login: tuple[str, str] | None

    def path_of(self, endpoint_url: str) -> str:
        """The path below ``url``, such as ``/api/chat``. Raises ConfigurationError for another server's address."""
        if not isinstance(endpoint_url, str):
            raise ConfigurationError(f"endpoint_url = {endpoint_url!r}: give an address of {self.url}")
        if endpoint_url.startswith("/"):
            return endpoint_url
        other = _split(endpoint_url)
        own = urlsplit(self.url)
        place = other.netloc.rpartition("@")[2]
        is_same = (other.scheme, place) == (own.scheme, own.netloc) and _login_of(other) in (None, self.login)
        if is_same and other.path.startswith(own.path + "/"):
            return other.path.removeprefix(own.path) + (f"?{other.query}" if other.query else "")
        raise ConfigurationError(
            f"endpoint_url = {_shown(endpoint_url)!r}: is not of this client's server ({self.url}); "
            "make a client for that one"
        )


def find_address(base_url: str | None, metadata: Mapping[str, Any]) -> Address:
    """The server's address: as given, else from ``metadata`` or the environment. Raises ConfigurationError."""
    given = (
        base_url
        or metadata.get("ollama_api_url")
        or os.environ.get("CORRAL_URL")
        or os.environ.get("OLLAMA_API_URL")
        or DEFAULT_URL
    )
    if not isinstance(given, str):
        raise ConfigurationError(f"base_url = {given!r}: give an address such as {DEFAULT_URL}")
    parts = _split(given)
    if parts.query or parts.fragment or "@" in parts.path:
        raise ConfigurationError(
            f"{_shown(given)!r}: is no address of a server; leave out what follows ? and #, and write such "
            "characters of a name or password as %3F, %23 and %2F"
        )
    path = _ENDPOINT.sub("", re.sub("/{2,}", "/", parts.path).rstrip("/"))
    return Address(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", "")), _login_of(parts))


def _login_of(parts: SplitResult) -> tuple[str, str] | None:
    return (unquote(parts.username), unquote(parts.password or "")) if parts.username else None


def _split(given: str) -> SplitResult:
    """The parts of an address, its host and port written in the one way."""
    text = given.strip()
    is_one_slash = _ONE_SLASH.match(text)
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        login, at, place = parts.netloc.rpartition("@")
        host, port = parts.hostname or "", parts.port
        is_right = (
            parts.scheme in _PORTS
            and _PLACE.fullmatch(place) is not None
            and all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))
            and port != 0
        )
    except ValueError:
        is_right = False
    if is_one_slash or not is_right or any(character.isspace() for character in text):
        example = DEFAULT_URL
        if is_one_slash and (place := text[is_one_slash.end() :].rpartition("@")[2]):
            example = f"{is_one_slash[1].lower()}://{place}"
        # The cause of a wrong address has it whole in its words.
        raise ConfigurationError(f"{_shown(text)!r}: is no address; write one such as {example}") from None
    netloc = f"[{host}]" if ":" in host else host
    if port not in (None, _PORTS[parts.scheme]):
        netloc += f":{port}"
    return parts._replace(netloc=login + at + netloc)


def _shown(address: str) -> str:
    """Only what follows the last @: before it may stand a password, which may hold any character."""
    _, at, rest = address.rpartition("@")
    return f"…@{rest}" if at else address


def find_key(api_key: str | None, metadata: Mapping[str, Any]) -> str | None:
    """The API key, if there is one. Raises ConfigurationError, without the key, for one that cannot be sent."""
    key = api_key or metadata.get("api_key") or os.environ.get("CORRAL_KEY") or None
    if key is not None and (not isinstance(key, str) or not _is_sendable(key)):
        raise ConfigurationError("api_key: must be printable ASCII characters; copy it again")
    return key


def checked_headers(headers: object) -> dict[str, str]:
    """As given. Raises ConfigurationError, without their values, for those that cannot be sent."""
    for name, value in checked_mapping("headers", headers).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError("headers: give names and values of text")
        if not _HEADER.fullmatch(name) or name.lower() in _FRAMING:
            raise ConfigurationError("headers: one of the names is none that a caller can give")
        if not _is_sendable(value):
            raise ConfigurationError(f"headers: the value of {name} must be printable ASCII characters")
    return checked_mapping("headers", headers)


def checked_mapping(name: str, given: object) -> dict[Any, Any]:
    """A copy. Raises ConfigurationError, without the value, which may hold secrets."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{name}: give a dict")
    return dict(given)


def _is_sendable(value: str) -> bool:
    return value.isascii() and value.isprintable() and value == value.strip()


def find_model(model: str | None, metadata: Mapping[str, Any]) -> str | None:
    """The client's own default model, if anybody has named one."""
    return model or metadata.get("ollama_model") or os.environ.get("OLLAMA_MODEL") or None
