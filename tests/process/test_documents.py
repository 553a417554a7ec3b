"""What the documents name is there: sections, files, classes, commands, figures."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.__main__ import CHECKS
from tests.support.checkout import ROOT

CONTRACT = ROOT / "service/simulated/wire-contract.md"
CONTRIBUTING = ROOT / ".github/CONTRIBUTING.md"
MAP = ROOT / "service/README.md"

DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in (
        ROOT / "README.md",
        CONTRIBUTING,
        MAP,
        CONTRACT,
        *ROOT.glob("tests/*/README.md"),
    )
)
FEWEST_CITATIONS = 60
"""So many comments cite the wire contract at least; fewer means that they are no longer found."""

PLACEHOLDER = re.compile("DIALECT|NAME|NUMBER")
"""Stands in a path for a name that the reader chooses."""

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=str)


def modules() -> Iterator[Path]:
    yield from (*ROOT.glob("service/**/*.py"), *ROOT.glob("tests/**/*.py"))


def section(path: Path, heading: str) -> str:
    """What stands below a heading of the second degree."""
    _, found, text = path.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    assert found, f"{path} has no section {heading!r}"
    return text.partition("\n## ")[0]


# The wire contract


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:\.\d+)?", text))


def citations(path: Path) -> set[str]:
    """The sections of the wire contract that a module cites: "wire contract 0", "wire contract 1.2, 1.3 and 2.1"."""
    text = re.sub(r"\s+(# )?", " ", path.read_text(encoding="utf-8"))
    cited = re.findall(r"\b[Cc]ontract(?:'s [a-z ]+)?[ (,]+(\d+(?:\.\d+)?(?:(?:,| and| to) \d+(?:\.\d+)?)*)", text)
    return {number for found in cited for number in numbers(found)}


def test_each_section_of_the_wire_contract_that_a_comment_cites_is_there() -> None:
    headings = re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", CONTRACT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    cited = {path.relative_to(ROOT): citations(path) for path in modules() if path != Path(__file__)}
    assert len(set(headings)) == len(headings)
    assert sum(map(len, cited.values())) >= FEWEST_CITATIONS
    assert {str(path): missing for path, found in cited.items() if (missing := found - {*headings})} == {}


# Files, links and commands


def is_there(name: str, *above: Path) -> bool:
    """Whether a path that a document names is a file or folder below one of these folders."""
    pattern = PLACEHOLDER.sub("*", name).rstrip("/")
    return any(next(folder.glob(pattern), None) is not None for folder in above)


@pytest.mark.parametrize("document", [MAP, CONTRIBUTING], ids=lambda path: path.name)
def test_each_file_that_is_named_for_contributors_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.<-])(?:service|tests|static|deploy|\.ci|\.github)/[\w./*-]*\w/?", text))
    assert len(named) >= 10
    assert {name for name in named if not is_there(name, ROOT)} == set()
    for path, test in re.findall(r"(tests/[\w/]+\.py)::(\w+)", text):
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8")


def test_each_module_in_the_drawings_is_there() -> None:
    drawings = "".join(re.findall(r"^```\n(.*?)^```$", MAP.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL))
    named = set(re.findall(r"(?<![\w/.…])(?:(?:\w+/)*\w+\.py\b|(?:\w+/)+(?![\w{]))", drawings))
    # A module may be named without its folder, where one of its neighbours was named with it.
    folders = (ROOT / "service", ROOT / "service/api/prompts", ROOT / "service/api/dropin")
    assert len(named) >= 40
    assert {name for name in named if not is_there(name, *folders)} == set()


@every_document
def test_each_link_of_a_document_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / document).read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = ROOT / document.parent / path if path else ROOT / document
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


@every_document
def test_each_module_that_a_document_has_run_is_there(document: Path) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for name in re.findall(r"python -m ((?:service|tests)(?:\.\w+)*)", text):
        assert find_spec(name) is not None, name


def test_each_scenario_that_is_named_as_a_benchmark_is_there() -> None:
    named = re.findall(
        r"^python -m tests\.bench ([a-z_ ]+?) *#", CONTRIBUTING.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert named
    assert {
        name for line in named for name in line.split() if not is_there(f"tests/bench/scenarios/{name}.py", ROOT)
    } == set()


# The map and its words


def test_every_room_is_on_the_map_above_those_from_which_it_imports() -> None:
    drawn = re.findall(r"^(\w+(?:/|\.py)) ", section(MAP, "The map"), flags=re.MULTILINE)
    rooms = {f"{path.name}/" for path in (ROOT / "service").iterdir() if (path / "__init__.py").exists()}
    rooms |= {path.name for path in (ROOT / "service").glob("*.py")} - {"__init__.py"}
    assert set(drawn) == rooms
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    [layers] = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    depths = {name: depth for depth, layer in enumerate(layers) for name in re.findall(r"\w+", layer)}
    assert drawn == sorted(drawn, key=lambda room: depths[room.removesuffix("/").removesuffix(".py")])


def test_the_states_are_drawn_as_beside_the_code() -> None:
    docstring = (ROOT / "service/job.py").read_text(encoding="utf-8").split('"""')[1]
    drawing = docstring.partition("\n\n")[2].partition("\n\n")[0]
    assert "──claim──▶" in drawing
    assert f"```\n{drawing}\n```" in section(MAP, "The states of a job")


def test_each_class_among_the_words_is_there() -> None:
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", section(MAP, "Words")))
    classes = {
        name
        for path in ROOT.glob("service/**/*.py")
        for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    assert {"NewJob", "Entered", "View", "Pick", "Claimed", "Running", "Assignment"} <= named
    assert named - classes == set()


# Checks and figures


def test_the_hooks_before_a_commit_are_the_checks_of_the_test_command() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    found = re.findall(r"^ +- id: (\w+)\n +name: \1\n +entry: (.+)\n +language: system$", hooks, flags=re.MULTILINE)
    assert {name: shlex.split(command) for name, command in found} == CHECKS
    assert hooks.count("- id:") == hooks.count("pass_filenames: false") == len(found)


def figures(path: Path) -> set[tuple[str, ...]]:
    """The figure, its baseline and the ratio of each row of a document's tables of benchmarks."""
    tables = re.findall(r"^\| what\b.*\n\|[-:|]+\n((?:\|.*\n)+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert tables, f"{path} has no table of figures"
    rows = [row for table in tables for row in table.splitlines()]
    return {tuple(cell.strip() for cell in row.split("|")[2:5]) for row in rows}


def test_the_figures_of_the_readme_are_those_of_the_page_on_benchmarks() -> None:
    few = figures(ROOT / "README.md")
    assert few
    assert few - figures(ROOT / "tests/bench/README.md") == set()
