"""Each version of Ollama that the real clients must be able to meet behind the service."""

from __future__ import annotations

import pytest

VERSIONS = ("0.24.0", "0.33.0", "0.40.0")


@pytest.fixture(params=VERSIONS)
def ollama_version(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    return version
