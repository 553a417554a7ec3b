"""The configuration as commands read it: the file that was named, ``.env``, the environment and the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from service.config import Config, load_config, read_env_file, taken_names


def read_config(
    config_file: Path | None,
    environ: Mapping[str, str],
    *,
    given: Mapping[str, Any] | None = None,
    instead_of_file: Mapping[str, Any] | None = None,
    say: Callable[[str], None] | None = None,
) -> Config:
    """The configuration as it is now. ``say`` is told what was taken from ``.env``. Raises ConfigurationError."""
    env_file = read_env_file(environ)
    names = taken_names(env_file, environ) if env_file is not None else []
    if say is not None and env_file is not None and names:
        say(f"Settings from {env_file.path}: {', '.join(names)}")
    return load_config(
        config_file, environ, dict(given or {}), env_file=env_file, instead_of_file=dict(instead_of_file or {})
    )
