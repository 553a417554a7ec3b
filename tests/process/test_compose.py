"""The compose files: valid by the Compose specification, and as the documents describe them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from ruamel.yaml import YAML

from service.config import Config, load_config
from service.config.reading import NAMED_VARIABLES
from tests.support.checkout import ROOT

WHOLE, SMALL = ROOT / "compose.yaml", ROOT / "deploy" / "compose.yaml"
OF_THE_DOCUMENT = {
    "SECRET_KEY",
    "OLLAMA_BASE_URL",
    "ACCESS_TOKEN_EXPIRE_MINUTES",
    "DATABASE_URL",
    "DEMO_ADMIN_KEY",
    "DEMO_USER_KEY",
}
_DEFAULT = re.compile(r"\$\{(\w+):-([^{}]*)\}")
"""One within another is not known to older programs that read such files."""


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = read(WHOLE)["services"]
    return found


def without_variables(value: str) -> str:
    """What Compose makes of a value where none of its variables is set."""
    return _DEFAULT.sub(r"\2", value)


def test_both_files_are_valid_by_the_compose_specification() -> None:
    validator = jsonschema_rs.validator_for(get_builtin_schema("vendor.compose-spec"))
    for path in (WHOLE, SMALL):
        content = read(path)
        assert [error.message for error in validator.iter_errors(content)] == []
        next(iter(content["services"].values()))["imge"] = "misspelt"
        assert not validator.is_valid(content)


@pytest.mark.parametrize("path", [WHOLE, SMALL], ids=lambda path: str(path.relative_to(ROOT)))
def test_running_jobs_may_drain_and_each_image_is_built_here_or_of_a_certain_version(path: Path) -> None:
    services = read(path)["services"]
    [corral] = [one for one in services.values() if "build" in one]
    assert float(corral["stop_grace_period"].removesuffix("s")) > Config().server.drain_seconds
    context = (path.parent / corral["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / corral["build"]["dockerfile"]).is_file()
    for one in services.values():
        assert "build" in one or re.fullmatch(r"[\w/]+:\d+\.\d+[\w.-]*", one["image"])
        assert one["restart"] == "unless-stopped"


def test_the_service_has_the_documents_name_and_finds_the_ollama_of_the_machine(services: dict[str, Any]) -> None:
    corral = services["ollama-api"]
    assert corral["networks"]["default"]["aliases"] == ["corral"]
    assert corral["extra_hosts"] == ["host.docker.internal:host-gateway"]
    assert corral["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert [without_variables(port) for port in corral["ports"]] == ["8000:8000"]


def test_the_documents_variables_are_passed_on_and_each_is_a_setting(services: dict[str, Any]) -> None:
    passed = services["ollama-api"]["environment"]
    assert {*passed} >= OF_THE_DOCUMENT
    others = {name for name in passed if name not in NAMED_VARIABLES}
    assert others == {"CORRAL_AUTH__REQUIRED", "PGUSER", "PGPASSWORD", "PGDATABASE"}
    # Those without a value are not set unless somebody sets them.
    environ = {name: without_variables(value) for name, value in passed.items() if value is not None}
    assert "${" not in str(environ)
    config = load_config(environ=environ)
    assert config.backends[0].url == "http://host.docker.internal:11434"
    assert (config.database.url, "postgres" in services) == ("postgresql://postgres:5432", True)


def test_both_services_mean_the_same_database_and_user(services: dict[str, Any]) -> None:
    corral, postgres = services["ollama-api"]["environment"], services["postgres"]["environment"]
    for of_the_client, of_the_server in (("USER", "USER"), ("PASSWORD", "PASSWORD"), ("DATABASE", "DB")):
        assert corral[f"PG{of_the_client}"] == postgres[f"POSTGRES_{of_the_server}"]


def test_the_image_has_what_the_database_needs_and_none_of_the_secrets() -> None:
    assert "[postgres]" in (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert [name for name in extras["postgres"] if name.startswith("asyncpg")]
    for ignored in (".dockerignore", ".gitignore"):
        assert ".env" in (ROOT / ignored).read_text(encoding="utf-8").splitlines()
