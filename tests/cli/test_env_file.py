"""``.env`` in the working directory: what is taken from it, what wins over it, and what is wrong with it."""

from __future__ import annotations

import errno
import re
from collections import UserDict
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.config import Config, load_config, read_env_file, taken_names
from service.config.reading import CLIENT_VARIABLES, NAMED_VARIABLES
from service.errors import ConfigurationError
from tests.support.checkout import ROOT

EXAMPLE = ROOT / ".env.example"
OF_COMPOSE = {"PORT", "POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_PORT"}
"""What only ``compose.yaml`` reads."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(text: str | bytes, environ: dict[str, str] | None = None) -> Config:
    """The configuration with this ``.env``."""
    Path(".env").write_bytes(text if isinstance(text, bytes) else text.encode())
    environ = environ or {}
    return load_config(None, environ, env_file=read_env_file(environ))


def taken(text: str, environ: dict[str, str] | None = None) -> list[str]:
    Path(".env").write_text(text, encoding="utf-8")
    env_file = read_env_file(environ or {})
    assert env_file is not None
    return taken_names(env_file, environ or {})


def refusal(text: str | bytes) -> str:
    with pytest.raises(ConfigurationError) as raised:
        loaded(text)
    said = str(raised.value)
    assert "\n" not in said
    return said


def test_it_wins_over_the_file_and_the_environment_over_it(folder: Path) -> None:
    (folder / "config.toml").write_text("[server]\nport = 1\n[queue]\nmax_size = 1\ndefault_model = 'a'\n")
    text = "CORRAL_QUEUE__MAX_SIZE=2\nCORRAL_SERVER__PORT=2\nCORRAL_QUEUE__DEFAULT_MODEL=b\n"
    config = loaded(text, {"CORRAL_SERVER__PORT": "3", "OLLAMA_MODEL": "c"})
    assert (config.queue.max_size, config.server.port, config.queue.default_model) == (2, 3, "c")


def test_a_variable_that_the_environment_has_empty_is_not_taken_from_it() -> None:
    assert loaded("DEMO_ADMIN_KEY=a\n", {"DEMO_ADMIN_KEY": ""}).auth.demo_admin_key == ""


def test_demo_keys_may_stand_in_it() -> None:
    auth = loaded("DEMO_ADMIN_KEY=a\nDEMO_USER_KEY=b\n").auth
    assert (auth.demo_admin_key, auth.demo_user_key) == ("a", "b")


def test_only_what_is_ours_is_taken_and_named() -> None:
    text = (
        "HOST=x\nPORT=1\nOLLAMA_HOST=y\nCORRAL_URL=u\nCORRAL_KEY=k\nCORRAL_DEBUG=1\nBARE\nSECRET_KEY=s\nOLLAMA_MODEL=\n"
    )
    assert taken(text) == ["SECRET_KEY"]
    assert taken(text + "CORRAL_SERVER__PORT=1\nLOG_LEVEL=INFO\n", {"SECRET_KEY": "t"}) == [
        "CORRAL_SERVER__PORT",
        "LOG_LEVEL",
    ]
    assert loaded(text).auth.secret_key == "s"


@pytest.mark.parametrize(
    ("line", "model"),
    [
        ("OLLAMA_MODEL=a:1b", "a:1b"),
        ("export OLLAMA_MODEL=a", "a"),
        ('OLLAMA_MODEL="a#b" # said', "a#b"),
        ("OLLAMA_MODEL='a${B}c'", "a${B}c"),
        ("OLLAMA_MODEL = a   # said", "a"),
        ("\ufeffOLLAMA_MODEL=a\r\n", "a"),
        ("B=x\nOLLAMA_MODEL=a${B}", "ax"),
        ("OLLAMA_MODEL=a${FROM_OUTSIDE}", "a outside"),
        ("FROM_OUTSIDE=inside\nOLLAMA_MODEL=a${FROM_OUTSIDE}", "a outside"),
        ("OLLAMA_MODEL=${MISSING:-b}", "b"),
        ("OLLAMA_MODEL=a\nOLLAMA_MODEL=b", "b"),
    ],
)
def test_a_line_is_read_as_others_read_it(line: str, model: str) -> None:
    assert loaded(line, {"FROM_OUTSIDE": " outside"}).queue.default_model == model


class _Counted(UserDict[str, str]):
    """Variables, and how often all of them were gone through."""

    times = 0

    def __iter__(self) -> Iterator[str]:
        self.times += 1
        return super().__iter__()


def test_a_large_file_of_others_is_read_in_one_pass() -> None:
    environ = _Counted(HOME="/home/me")
    Path(".env").write_text("".join(f"A{number}=${{HOME}}\n" for number in range(500)), encoding="utf-8")
    env_file = read_env_file(environ)
    assert env_file is not None
    assert env_file.variables["A499"] == "/home/me"
    assert environ.times <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\n\n\nhunter2 hunter2\n", "line 4: not NAME=value: write it so, or put # before it"),
        ("A=1\nSECRET_KEY='hunter2\nB=2\n", "line 2: not NAME=value"),
        (b"A=1\nSECRET_KEY=hunter2\xff\n", "line 2: not UTF-8: save the file as UTF-8 text"),
        ("CORRAL_SERVR__PORT=1", "CORRAL_SERVR__PORT: there is no such setting; did you mean server?"),
        ("CORRAL_SERVER__PRT=1", "CORRAL_SERVER__PRT: server.prt: there is no such setting; did you mean port?"),
        ("CORRAL_BACKENDS=x", 'CORRAL_BACKENDS: must be JSON, such as ["a", "b"]'),
        ("LOG_LEVEL=loud", "LOG_LEVEL: log.level = 'LOUD': must be 'DEBUG'"),
        ("CORRAL_SERVER__PORT", "CORRAL_SERVER__PORT: has no value: write CORRAL_SERVER__PORT=value"),
        ("DATABASE_URL=mysql://me:hunter2@h", "DATABASE_URL: database.url = (not shown): write"),
    ],
)
def test_what_is_wrong_is_refused_with_the_file_the_line_or_name_and_the_remedy(
    folder: Path, text: str | bytes, expected: str
) -> None:
    said = refusal(text)
    assert said.startswith(f"{folder / '.env'}: {expected}")
    assert "hunter2" not in said


def test_a_file_that_this_user_may_not_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    (folder / ".env").touch()
    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(ConfigurationError, match=r"\.env: cannot be read \(Permission denied\): let this user read it"):
        read_env_file({})


def test_without_the_file_or_with_a_folder_of_that_name_nothing_is_taken(folder: Path) -> None:
    assert read_env_file({}) is None
    (folder / ".env").mkdir()
    assert read_env_file({}) is None


def test_a_configuration_is_read_without_it_unless_it_is_handed_over(folder: Path) -> None:
    (folder / ".env").write_text("OLLAMA_MODEL=a\n")
    assert load_config(None, {}) == Config()


def test_each_line_of_the_example_is_commented_out() -> None:
    loaded_example = loaded(EXAMPLE.read_bytes())
    assert loaded_example == Config()
    assert taken(EXAMPLE.read_text(encoding="utf-8")) == []


def test_the_example_has_each_variable_and_none_that_is_not_there() -> None:
    lines = re.findall(r"^# (\w+=.*)$", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    names = [line.partition("=")[0] for line in lines]
    assert len(set(names)) == len(names)
    text = "\n".join(lines)
    config = loaded(text)
    assert config.auth.demo_variables == ["DEMO_ADMIN_KEY", "DEMO_USER_KEY"]
    assert set(names) - {*taken(text)} == OF_COMPOSE
    assert {*NAMED_VARIABLES} - {*names} == set()
    assert not CLIENT_VARIABLES & {*names}
