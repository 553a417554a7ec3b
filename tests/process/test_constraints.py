"""``deploy/constraints.txt``: a version and hashes for all that Corral is installed with."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.checkout import ROOT

TEXT = (ROOT / "deploy" / "constraints.txt").read_text(encoding="utf-8")
LINES = [line for line in TEXT.replace("\\\n", " ").splitlines() if not line.startswith("#")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WANTED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["postgres"]]


def pinned() -> dict[str, Requirement]:
    """What is held, by name."""
    found = [Requirement(line.partition("--hash")[0]) for line in LINES]
    return {canonicalize_name(one.name): one for one in found}


@pytest.mark.parametrize("wanted", WANTED)
def test_it_holds_what_the_project_asks_for(wanted: str) -> None:
    asked = Requirement(wanted)
    held = pinned()[canonicalize_name(asked.name)]
    [version] = held.specifier
    assert version.operator == "=="
    assert asked.specifier.contains(version.version)
    assert str(held.marker) == str(asked.marker)


def test_every_line_has_one_version_and_hashes_and_no_address_is_told() -> None:
    assert len(pinned()) == len(LINES) > len(WANTED)
    for line in LINES:
        assert re.fullmatch(r"[a-z0-9-]+==[^\s;]+ *(;[^-]+)?( +--hash=sha256:[0-9a-f]{64})+", line), line
    assert not re.search(r"://|index|@ ", "\n".join(LINES))
