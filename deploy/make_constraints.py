"""Writes ``deploy/constraints.txt``: of all that is installed with Corral the version and the hashes of its wheels.

Run it before a release, with the package index that pip is configured for: ``python deploy/make_constraints.py``. pip
resolves what ``pyproject.toml`` asks for, for each Python and platform that is named here; it installs nothing, and no
address is written.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "deploy" / "constraints.txt"
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = (
    ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_5_x86_64"),
    ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
    ("macosx_14_0_arm64", "macosx_11_0_arm64"),
)
_HEAD = """\
# Made by deploy/make_constraints.py: every version, with the hashes of its wheels for CPython 3.11 to 3.13 on Linux
# (x86-64, ARM) and macOS (ARM).
# pip install --require-hashes --only-binary=:all: -r deploy/constraints.txt && pip install --no-deps .
"""


def main() -> None:
    """Write the file anew."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["postgres"]]
    markers = {_name_of(one): one.partition(";")[2].strip() for one in wanted}
    versions: dict[str, str] = {}
    hashes: defaultdict[str, set[str]] = defaultdict(set)
    for python in PYTHONS:
        for platform in PLATFORMS:
            for name, version, digest in _resolved(wanted, versions, python, platform):
                # Every later target gets the versions of the first.
                assert versions.setdefault(name, version) == version, f"{name} is {versions[name]} and {version}"
                hashes[name].add(digest)
    with TARGET.open("w", encoding="utf-8") as file:
        file.write(_HEAD)
        for name in sorted(versions):
            marker = f" ; {markers[name]}" if markers.get(name) else ""
            lines = [f"{name}=={versions[name]}{marker}", *(f"--hash=sha256:{one}" for one in sorted(hashes[name]))]
            file.write(" \\\n    ".join(lines) + "\n")


def _resolved(
    wanted: list[str], known: dict[str, str], python: str, platform: tuple[str, ...]
) -> list[tuple[str, str, str]]:
    """Name, version and hash of each wheel that pip would install there."""
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder) / "known.txt", Path(folder) / "report.json"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in known.items()), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", f"--target={folder}"]
        command += [f"--platform={one}" for one in platform]
        command += [f"--constraint={constraints}", f"--report={report}", *wanted]
        subprocess.run(command, check=True)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return [
        (
            _name_of(one["metadata"]["name"]),
            one["metadata"]["version"],
            one["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for one in found
    ]


def _name_of(requirement: str) -> str:
    """The name as package indexes compare it."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


if __name__ == "__main__":
    main()
