"""What the documents name is there: sections, files, classes, commands, figures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

CONTRACT = ROOT / "service/simulated/wire-contract.md"

FEWEST_CITATIONS = 60
"""So many comments cite the wire contract at least; fewer means that they are no longer found."""


def modules() -> Iterator[Path]:
    yield from (*ROOT.glob("service/**/*.py"), *ROOT.glob("tests/**/*.py"))


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


def figures(path: Path) -> set[tuple[str, ...]]:
    """The figure, its baseline and the ratio of each row of a document's table of benchmarks."""
    heading = "| what | figure | baseline, same run | ratio |"
    _, found, table = path.read_text(encoding="utf-8").partition(heading)
    assert found, f"{path} has no table of figures"
    rows = table.split("\n\n", 1)[0].splitlines()[2:]
    return {tuple(cell.strip() for cell in row.split("|")[2:5]) for row in rows}


def test_the_figures_of_the_readme_are_those_of_the_page_on_benchmarks() -> None:
    few = figures(ROOT / "README.md")
    assert few
    assert few - figures(ROOT / "tests/bench/README.md") == set()
