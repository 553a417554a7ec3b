"""What is in ``deploy/`` works: the unit is clean and tight, and the wheel carries the pages and the defaults."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_editable, build_wheel

from service.config import Config
from tests.support.checkout import ROOT

DEPLOY = ROOT / "deploy"
EXPOSURE_TENTHS = 20
"""``systemd-analyze security`` may find an exposure of 2.0 at most."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, started with this interpreter in place of the copy that its text expects."""
    text, count = re.subn(
        r"^ExecStart=\S+", f"ExecStart={sys.executable}", (DEPLOY / "corral.service").read_text(), flags=re.MULTILINE
    )
    assert count == 1
    path = tmp_path / "corral.service"
    path.write_text(text)
    return path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_unit_is_clean(unit: Path) -> None:
    verified = analyze("verify", str(unit))
    assert (verified.returncode, verified.stdout) == (0, "")


def test_the_unit_exposes_little(unit: Path) -> None:
    judged = analyze("security", "--offline=true", f"--threshold={EXPOSURE_TENTHS}", str(unit))
    assert judged.returncode == 0, judged.stdout
    assert "Overall exposure level" in judged.stdout


def test_the_unit_lets_running_jobs_drain() -> None:
    settings = dict(
        line.split("=", 1)
        for line in (DEPLOY / "corral.service").read_text().splitlines()
        if re.match(r"[A-Z]\w*=", line)
    )
    assert float(settings["TimeoutStopSec"]) > Config().server.drain_seconds
    assert settings["Type"] == "notify"
    assert float(settings["WatchdogSec"]) > 0


def test_the_wheel_carries_the_pages_and_the_default_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    name = build_wheel(str(tmp_path))
    names = zipfile.ZipFile(tmp_path / name).namelist()
    assert "service/config.toml" in names
    assert {f"service/static/{path.relative_to(ROOT / 'static')}" for path in (ROOT / "static").rglob("*.*")} <= set(
        names
    )
    # The client library is there once, as the package that it is.
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "service").rglob("*.py")}
    assert {name.replace("service/client/corral/", "corral/") for name in modules} <= set(names)
    assert "corral/py.typed" in names
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith("service/client")]
    # What is in it is enough to be imported, each package from there.
    zipfile.ZipFile(tmp_path / name).extractall(tmp_path / "installed")
    program = "import corral.client, service.app; print(corral.__file__); print(service.__file__)"
    said = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert said == [str(tmp_path / "installed" / package / "__init__.py") for package in ("corral", "service")]
    assert not [name for name in names if name.startswith(("tests/", "static/", "deploy/"))]


def test_an_editable_install_sees_both_packages_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    wheel = zipfile.ZipFile(tmp_path / build_editable(str(tmp_path)))
    [paths] = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith(".pth")]
    assert set(paths.split()) == {str(ROOT), str(ROOT / "service" / "client")}
    assert not [name for name in wheel.namelist() if name.endswith(".py")]
