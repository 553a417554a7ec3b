"""Reading the configuration: file, then ``.env``, then environment, then command line; the later one wins.

Every bad key and value is reported with the place it came from, so each source keeps its origin until the end.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from service.config.env_file import EnvFile
from service.config.sections import DEMO_VARIABLES, BackendConfig, Config, ModelConfig
from service.errors import ConfigurationError

PREFIX = "CORRAL_"
CLIENT_VARIABLES = frozenset({"CORRAL_URL", "CORRAL_KEY", "CORRAL_DEBUG"})
"""The client library's, which may be set where the service runs too. They are passed over and never read."""
ENVIRONMENT_ONLY = {f"auth.{name}": variable for name, variable in DEMO_VARIABLES.items()}
"""API keys for a try-out: they must not be left lying in a file."""

_SECRET = ("auth.", "database.url", "headers")
_PACKAGE = Path(__file__).parent.parent


class Source(NamedTuple):
    """Settings from one place: a file, a variable or an option. Errors call the place ``name``."""

    name: str
    settings: dict[str, Any]


def load_config(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
    *,
    env_file: EnvFile | None = None,
    instead_of_file: Mapping[str, object] | None = None,
) -> Config:
    """The configuration from ``path`` (see ``find_config_file``), ``env_file``, ``environ`` and the command line's
    ``options``.

    An option is ``{"server.port": 8001}``, and None means that it was not given. ``instead_of_file`` is written in the
    same way, and wins over the file alone.
    Raises ConfigurationError, whose text is one line: the place, the key, the value and the remedy.
    """
    environ = environ or {}
    sources = [_file_source(find_config_file(path))]
    sources += _given("this command", instead_of_file or {})
    if env_file is not None:
        sources += _variables(_taken(env_file, environ), f"{env_file.path}: ")
    sources += _variables(environ)
    sources += _given("the command line", options or {})
    merged: dict[str, Any] = {}
    for source in sources:
        merged = _overlaid(merged, source.settings)
    try:
        return Config(**merged)
    except ValidationError as refusal:
        raise ConfigurationError(_explained(refusal, sources)) from None


def taken_names(env_file: EnvFile, environ: Mapping[str, str]) -> list[str]:
    """The variables of a ``.env`` that are settings of ours, but for those that the environment has itself.

    Whatever else is in it belongs to others: such a file may be another program's.
    """
    return [name for name, value in env_file.variables.items() if name not in environ and _is_setting(name, value)]


def _is_setting(name: str, value: str | None) -> bool:
    return _has_prefix(name) or (name in NAMED_VARIABLES and value != "")


def _taken(env_file: EnvFile, environ: Mapping[str, str]) -> dict[str, str]:
    taken = {}
    for name in taken_names(env_file, environ):
        value = env_file.variables[name]
        if value is None:
            raise ConfigurationError(f"{env_file.path}: {name}: has no value: write {name}=value")
        taken[name] = value
    return taken


def find_config_file(path: Path | None = None) -> Path:
    """The file to read: ``path``, else ``config.toml`` in the working directory, else the one that came with us."""
    if path is not None:
        return path
    here = Path("config.toml")
    return here if here.is_file() else _beside_or_above("config.toml")


def find_static_folder() -> Path:
    """The pages: inside the package where it is installed, beside it in a checkout."""
    return _beside_or_above("static")


def _beside_or_above(name: str) -> Path:
    inside = _PACKAGE / name
    found = inside if inside.exists() else _PACKAGE.parent / name
    if not found.exists():
        raise ConfigurationError(f"{name} is not where this program was installed ({inside}): install it again")
    return found


def _file_source(path: Path) -> Source:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise ConfigurationError(
            f"{path}: cannot be read ({failure.strerror}): give --config a file that can"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise ConfigurationError(f"{path}: not TOML: {failure}") from None
    for key, variable in ENVIRONMENT_ONLY.items():
        if _value_at(settings, tuple(key.split("."))) is not None:
            raise ConfigurationError(f"{path}: {key}: not for this file: set {variable} in the environment or .env")
    return Source(str(path), settings)


def _one_backend(url: str) -> list[dict[str, str]]:
    return [{"name": "ollama", "url": url}]


NAMED_VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "OLLAMA_BASE_URL": ("backends", _one_backend),
    "OLLAMA_URL": ("backends", _one_backend),
    "OLLAMA_MODEL": ("queue.default_model", str),
    "OLLAMA_POLL_INTERVAL": ("database.poll_interval_seconds", str),
    "OLLAMA_PROXY_DB": ("database.path", str),
    "OLLAMA_PROXY_QUIET": ("server.access_log", lambda _anything: False),
    "DATABASE_URL": ("database.url", str),
    "SECRET_KEY": ("auth.secret_key", str),
    **{variable: (key, str) for key, variable in ENVIRONMENT_ONLY.items()},
    "ACCESS_TOKEN_EXPIRE_MINUTES": ("auth.token_minutes", str),
    "LOG_LEVEL": ("log.level", str),
}
"""The variables without our prefix. Of two that set the same key the later one wins; an empty one is not set."""


def _given(name: str, settings: Mapping[str, object]) -> Iterator[Source]:
    return (Source(name, _nested(key, value)) for key, value in settings.items() if value is not None)


def _variables(environ: Mapping[str, str], place: str = "") -> Iterator[Source]:
    for name, (key, read) in NAMED_VARIABLES.items():
        if value := environ.get(name):
            yield Source(f"{place}{name}", _nested(key, read(value)))
    yield from _prefixed_variables(environ, place)


def _has_prefix(name: str) -> bool:
    return name.upper().startswith(PREFIX) and name not in CLIENT_VARIABLES


class _OneVariable(EnvSettingsSource):
    """pydantic-settings' reader, given one variable at a time instead of the whole environment of the process."""

    def __init__(self, name: str, value: str) -> None:
        self._variable = {name.lower(): value}
        super().__init__(Config)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._variable


def _prefixed_variables(environ: Mapping[str, str], place: str) -> Iterator[Source]:
    # Sorted by length, so that CORRAL_SERVER (a whole section as JSON) comes before CORRAL_SERVER__PORT.
    for name in sorted(filter(_has_prefix, environ), key=lambda name: (len(name), name)):
        try:
            settings = _OneVariable(name, environ[name])()
        except SettingsError as failure:
            # The value is not shown: a table of backends may hold their passwords.
            raise ConfigurationError(f'{place}{name}: must be JSON, such as ["a", "b"] ({failure.__cause__})') from None
        if not settings:
            section = name[len(PREFIX) :].lower().partition("__")[0]
            raise ConfigurationError(f"{place}{name}: there is no such setting{_suggestion((section,))}")
        yield Source(f"{place}{name}", settings)


def _nested(key: str, value: object) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _overlaid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both, where ``above`` wins: tables are merged, and everything else is replaced, lists included."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _overlaid(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _value_at(settings: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        if isinstance(settings, dict):
            settings = settings.get(str(step))
        elif isinstance(settings, list | tuple) and isinstance(step, int) and step < len(settings):
            settings = settings[step]
        else:
            return None
    return settings


def _explained(refusal: ValidationError, sources: list[Source]) -> str:
    """One line for the first thing that is wrong."""
    error = refusal.errors(include_url=False)[0]
    place = error["loc"]
    key = ".".join(map(str, place)) or "backends"
    found = [source.name for source in sources if _value_at(source.settings, place) is not None]
    where = found[-1] if found else sources[0].name
    if error["type"] == "extra_forbidden":
        return f"{where}: {key}: there is no such setting{_suggestion(place)}"
    reason = error["msg"].removeprefix("Value error, ").replace("Input should", "must")
    if not isinstance(error["input"], str | int | float | bool):
        return f"{where}: {key}: {reason}"
    value = repr(error["input"])
    is_secret = any(part in key for part in _SECRET) or ("url" in key and "@" in value)
    return f"{where}: {key} = {'(not shown)' if is_secret else value}: {reason}{_default_hint(place)}"


def _default_hint(place: tuple[str | int, ...]) -> str:
    default: Any = Config()
    for step in place:
        default = getattr(default, str(step), None) if isinstance(default, BaseModel) else None
    return f" (the default is {default})" if default and isinstance(default, str | int | float | Path) else ""


def _suggestion(place: tuple[str | int, ...]) -> str:
    if len(place) == 1:
        known = list(Config.model_fields)
    else:
        section = Config.model_fields[str(place[0])].annotation
        model = {"backends": BackendConfig, "models": ModelConfig}.get(str(place[0]), section)
        known = list(getattr(model, "model_fields", ()))
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    return f"; did you mean {close[0]}?" if close else "; config.toml lists them all"
