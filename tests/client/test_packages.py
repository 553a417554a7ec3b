"""The client library is a package of its own, and tests run the checkout's."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import corral
from tests.support.checkout import ROOT
from tests.test_house import places

OWN_FOLDER = ROOT / "service" / "client" / "corral"


def run(program: str, folder: Path) -> list[str]:
    """What a program says that is run with this interpreter somewhere else, line by line."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


def test_the_checkouts_library_is_run_here_and_in_every_process_that_a_test_starts(tmp_path: Path) -> None:
    assert Path(corral.__file__).parent == OWN_FOLDER
    assert run("import corral; print(corral.__file__)", tmp_path) == [str(OWN_FOLDER / "__init__.py")]


def test_the_service_imports_nothing_of_the_library_but_its_breaker_and_its_start_the_command_line() -> None:
    found = places(r"^\s*(from|import) corral\b", "service/**/*.py")
    outside = [place for place in found if not place.startswith("service/client/")]
    assert outside
    allowed = ("from corral.breaker import", "from corral.cli import main_of_service")
    assert [place for place in outside if not any(words in place for words in allowed)] == []


def test_the_contract_forbids_the_service_every_other_module() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    [forbidden] = [one["forbidden_modules"] for one in settings["contracts"] if one["id"] == "client's breaker"]
    modules = {f"corral.{path.stem}" for path in OWN_FOLDER.glob("*.py")} | {"corral.batch"}
    assert set(forbidden) == modules - {"corral.__init__", "corral.breaker"}


def test_the_breaker_loads_nothing_else_of_the_library(tmp_path: Path) -> None:
    program = """
import sys, corral.breaker
print(*sorted(name for name in sys.modules if name.partition(".")[0] in {"corral", "httpx2", "anyio", "tenacity"}))
"""
    assert run(program, tmp_path) == ["corral corral.breaker"]


def test_the_service_loads_the_breaker_and_nothing_else_of_the_library_or_for_it(tmp_path: Path) -> None:
    program = """
import sys, service.app, service.cli.serving, service.cli.serve
print(*sorted(name for name in sys.modules if name.partition(".")[0] in {"corral", "httpx2", "anyio", "tenacity"}))
"""
    assert run(program, tmp_path) == ["corral corral.breaker"]


def test_names_are_loaded_when_they_are_used_and_all_of_them_are_there(tmp_path: Path) -> None:
    program = """
import sys, corral
assert [name for name in sys.modules if name.startswith("corral.")] == []
assert set(corral.__all__) <= set(dir(corral))
for name in corral.__all__:
    assert getattr(corral, name).__name__ == name
try:
    corral.nothing
except AttributeError as error:
    print(error)
"""
    assert run(program, tmp_path) == ["module 'corral' has no attribute 'nothing'"]


def test_the_library_is_no_part_of_the_service_and_says_that_it_is_typed() -> None:
    assert not (OWN_FOLDER.parent / "__init__.py").exists()
    assert [path.name for path in OWN_FOLDER.parent.iterdir() if path.is_dir() and path.name != "__pycache__"] == [
        "corral"
    ]
    assert (OWN_FOLDER / "py.typed").exists()
    assert places(r"^\s*(from|import) (service|tests)\b", "service/client/**/*.py") == []
