"""The version of what runs here."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def own_version() -> str:
    """As the installed package says; "unknown" where the code runs without being installed."""
    try:
        return metadata.version("ollama-corral")
    except metadata.PackageNotFoundError:
        return "unknown"
