"""Further client libraries, installed into folders of their own as they are large: with ``--long --clients`` only."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from service.simulated import FaultKind
from tests.support.checkout import ROOT
from tests.support.client_service import arm, ran, service_for_clients
from tests.support.drop_in import STREAMING

SCRIPTS = Path(__file__).parent / "scripts"
FROM_PYPI = {
    "langchain_ollama_client.py": ["langchain-ollama"],
    "langchain_openai_client.py": ["langchain-openai"],
    "litellm_client.py": ["litellm", "mcp"],
    "llama_index_client.py": ["llama-index-llms-ollama", "llama-index-embeddings-ollama"],
    "pydantic_ai_client.py": ["pydantic-ai-slim[openai,anthropic]"],
}
FROM_NPM = {
    "ollama_client.mjs": ["ollama"],
    "openai_client.mjs": ["openai"],
    "anthropic_client.mjs": ["@anthropic-ai/sdk"],
    "ai_client.mjs": ["ai", "@ai-sdk/openai-compatible"],
}
pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


@pytest.fixture(autouse=True)
def _asked_for(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--clients"):
        pytest.skip("further client libraries are tried with --clients only")


async def talk(*command: str, folder: Path) -> None:
    """Run a script against a service that breaks off when it is asked to, and whose streams have signs of life before
    the first event and between any two.
    """
    async with service_for_clients({"queue.heartbeat_seconds": 0.03}) as service:
        for endpoint in STREAMING:
            arm(service, FaultKind.DELAY_HEADERS, endpoint, seconds=0.1)
            arm(service, FaultKind.PACE, endpoint, seconds=0.05)
            arm(service, FaultKind.HANG_UP, endpoint, after_tokens=5, prompt="break off")
            arm(service, FaultKind.STALL, endpoint, after_tokens=5, prompt="Please stall")
        print(await ran(*command, service.url, folder=folder))


@pytest.mark.parametrize("script", FROM_PYPI)
async def test_a_library_from_pypi_works(script: str, tmp_path: Path) -> None:
    await ran(sys.executable, "-m", "venv", str(tmp_path / "venv"), folder=tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    await ran(python, "-m", "pip", "install", "--quiet", *FROM_PYPI[script], folder=tmp_path)
    await talk(python, "-m", f"tests.clients.scripts.{script.removesuffix('.py')}", folder=ROOT)


@pytest.mark.parametrize("script", FROM_NPM)
async def test_a_library_from_npm_works(script: str, tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("no npm")
    for name in (script, "expecting.mjs"):
        shutil.copy(SCRIPTS / name, tmp_path)
    await ran("npm", "install", "--no-audit", "--no-fund", "--silent", *FROM_NPM[script], folder=tmp_path)
    await talk("node", script, folder=tmp_path)
