"""The house keeps its own rules: sizes, names, words, layers, and a configuration file that is the whole manual."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from service.config import BackendConfig, Config, ModelConfig
from service.config.reading import ENVIRONMENT_ONLY, NAMED_VARIABLES
from tests.support.class_sizes import ClassSize, class_sizes, functions

ROOT = Path(__file__).parent.parent
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 70
MOST_METHODS = 30
MOST_ATTRIBUTES = 20
# The surface of the client library is what its users write down, and is not ours to cut.
FIXED_SURFACES = {"Client", "AsyncClient"}
TOP_LEVEL = {
    "service",
    "static",
    "tests",
    "deploy",
    "compose.yaml",
    "config.toml",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
}
MADE_BY_TOOLS = {"build", "dist", "data"}
VAGUE_WORDS = {"util", "utils", "helper", "helpers", "common", "manager", "misc"}
START_COMMAND = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/python -m service demo"
TEST_COMMAND = "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/python -m tests"


def sources(*patterns: str) -> Iterator[Path]:
    found = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    assert found, f"nothing matches {patterns}"
    yield from found


def places(pattern: str, *where: str) -> list[str]:
    """Every line that the regular expression matches, as ``path:line: text``."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources(*where)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]


def test_the_top_level_holds_what_it_should_and_nothing_else() -> None:
    entries = {path.name for path in ROOT.iterdir() if not path.name.startswith((".", "__"))}
    assert entries - MADE_BY_TOOLS == TOP_LEVEL


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources("service/**/*.py", "tests/**/*.py", "static/*.*")
    }
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}


def test_no_function_is_longer_than_a_reader_can_hold() -> None:
    lengths = {
        f"{path.relative_to(ROOT)}: {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path in sources("service/**/*.py", "tests/**/*.py")
        for function in functions(path)
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_FUNCTION} == {}


def test_no_class_has_more_than_a_reader_can_hold() -> None:
    sizes = class_sizes(ROOT, "service") + class_sizes(ROOT / "service" / "client", "corral")
    assert len(sizes) > 100
    too_large = [size for size in sizes if size.methods > MOST_METHODS or size.attributes > MOST_ATTRIBUTES]
    surplus = {size.name: (size.methods, size.attributes) for size in too_large}
    allowed = {name for name in surplus if name.rpartition(".")[2] in FIXED_SURFACES}
    assert {name: size for name, size in surplus.items() if name not in allowed} == {}


SAMPLE = """
from dataclasses import dataclass
from typing import Generic, NamedTuple
from pydantic import BaseModel
from sample.below import Base as Renamed

class Child(Renamed, Generic[int]):
    def one(this): this.a, (this.b, other.c) = 1, (2, 3)
    def shared(self): self.inherited += 1
    async def two(self):
        for self.d in (): self.other.e = 1
        def inner(): self.f: int = 1
class Row(NamedTuple):
    def one(self): self.a = 1
class Body(BaseModel):
    def one(self): self.a = 1
class Longer(Body):
    def two(self): self.b = 1
@dataclass(slots=True)
class Held:
    field: int
    def one(self): self.field = 1
"""


def test_methods_and_attributes_are_counted_with_their_own_bases_and_without_records(tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample/__init__.py").write_text(SAMPLE)
    (tmp_path / "sample/below.py").write_text(
        "class Base(dict):\n def __init__(self): self.inherited = 1\n def shared(self): ..."
    )
    assert class_sizes(tmp_path, "sample") == [
        ClassSize("sample.Child", methods=4, attributes=5),
        ClassSize("sample.Held", methods=1, attributes=0),
        ClassSize("sample.below.Base", methods=2, attributes=1),
    ]


def test_modules_are_named_by_responsibility() -> None:
    names = {path.stem for path in sources("service/**/*.py", "tests/**/*.py", "static/*.js")}
    assert {name for name in names if len(name) <= 2 or VAGUE_WORDS & set(name.split("_"))} == set()


@pytest.mark.parametrize(
    ("pattern", "where"),
    [
        (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function",
            ["static/*.js", "static/*.html"],
        ),
        (r"""(src|href|from|import|url)\s*[=(]?\s*["'(]?https?:""", ["static/*.js", "static/*.html", "static/*.css"]),
        (r"\b(TODO|FIXME|XXX|NotImplementedError)\b", ["service/**/*.py", "static/*.*"]),
        (r"\.iter_chunks\(", ["service/**/*.py"]),
        (r"except( (Base)?Exception)?: *pass$|suppress\((Base)?Exception\)", ["service/**/*.py"]),
        (r"unittest\.mock|MagicMock", ["tests/**/*.py"]),
    ],
)
def test_a_word_that_the_house_does_not_allow_is_nowhere(pattern: str, where: list[str]) -> None:
    own = str(Path(__file__).relative_to(ROOT))
    assert [place for place in places(pattern, *where) if not place.startswith(own)] == []


# What a fast machine does sooner, or a slow one too late.
DURATIONS = (
    r"perf_counter|monotonic(_ns)?\(|process_time|loop\.time\(|time\.time\(\) *-",
    r"assert\b.*(_seconds|_duration|_ms|elapsed|took)\b.*[<>]=?(?![ =]*0\b)",
    r"assert\b.*\) - .*[<>]",
    r"time\.sleep\(|asyncio\.sleep\((?!0\))|call_later\(|asyncio\.wait\(.*timeout=",
)
OWN_TIME = {
    "tests/backend/test_limits.py": "the test turns the clock of this loop by hand",
    "tests/backend/test_trouble.py": "the pause of the loop is the fault",
    "tests/process/test_bench.py": "what is compared is processor time that the test itself spends",
    "tests/faults/machine_rows.py": "the pause of the process is the fault",
    "tests/batch/test_many_lines.py": "what is looked at from time to time is memory",
    "tests/abuse/test_attacks.py": "the long lane measures how long the victim waits",
    "tests/support/abuse.py": "the long lane measures how long the victim waits",
    "tests/abuse/test_fuzzing.py": "the long lane goes on as long as was asked for",
    "tests/scheduling/test_estimates.py": "what is compared is an estimate of the service's, and nothing measured",
    "tests/scheduling/test_placement_sharing.py": "time is simulated",
    "tests/workers/test_retry_policy.py": "the pause is what a pure function answers, and nothing measured",
}


def test_no_test_of_the_suite_depends_on_how_long_something_takes() -> None:
    found = [place for pattern in DURATIONS for place in places(pattern, "tests/**/*.py")]
    is_elsewhere = re.compile(rf"tests/bench/|{re.escape(str(Path(__file__).relative_to(ROOT)))}:")
    timed = [place for place in found if not is_elsewhere.match(place)]
    assert [place for place in timed if place.partition(":")[0] not in OWN_TIME] == []
    assert {place.partition(":")[0] for place in timed} == set(OWN_TIME)


def test_every_new_module_must_be_given_its_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["id"] == "layers")
    assert layers["exhaustive"] is True
    assert layers["containers"] == ["service"]
    assert "exhaustive_ignores" not in layers
    assert not [contract["id"] for contract in contracts if contract.get("ignore_imports")]


def test_every_folder_of_modules_is_a_package() -> None:
    # The import contracts do not look into a folder that is none.
    folders = {path.parent for path in sources("service/**/*.py", "tests/**/*.py")}
    assert {str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()} == set()


def test_continuous_integration_runs_the_command_of_the_readme() -> None:
    assert f'\n{TEST_COMMAND} "$@"' in (ROOT / ".ci/run").read_text()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert START_COMMAND in readme
    assert TEST_COMMAND in readme


def test_every_command_that_the_documents_name_exists() -> None:
    named = {
        command
        for path in sources("README.md", "config.toml", "compose.yaml", ".env.example", "deploy/*")
        for command in re.findall(r"python -m service ([a-z]+)", path.read_text(encoding="utf-8"))
    }
    assert {"demo", "check"} <= named
    for command in named:
        subprocess.run(
            [sys.executable, "-m", "service", command, "--help"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True
        )


@pytest.fixture(scope="module")
def manual() -> dict[str, Any]:
    """``config.toml`` with its examples, which are commented out, as settings too."""
    text = (ROOT / "config.toml").read_text(encoding="utf-8")
    return tomllib.loads(re.sub(r"^# (\[models\..*\]|[a-z_]+ = .*)$", r"\1", text, flags=re.MULTILINE))


def keys_of(section: type[BaseModel], prefix: str) -> set[str]:
    return {f"{prefix}.{key}" for key in section.model_fields} - set(ENVIRONMENT_ONLY)


def test_every_setting_is_in_the_configuration_file_and_every_key_there_is_a_setting(manual: dict[str, Any]) -> None:
    sections: dict[str, type[BaseModel]] = {name: type(default) for name, default in Config()}
    sections |= {"backends": BackendConfig, "models": ModelConfig}
    settings = {key for name, section in sections.items() for key in keys_of(section, name)}
    [backend], [model] = manual["backends"], manual["models"].values()
    tables = manual | {"backends": backend, "models": model}
    assert {f"{name}.{key}" for name, table in tables.items() for key in table} == settings


def test_the_configuration_file_holds_the_defaults(manual: dict[str, Any]) -> None:
    assert Config(**tomllib.loads((ROOT / "config.toml").read_text(encoding="utf-8"))) == Config()
    Config(**manual)


def test_every_key_of_the_configuration_file_is_explained() -> None:
    is_explained = False
    unexplained = []
    for line in (ROOT / "config.toml").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("["):
            is_explained = False
        elif line.startswith("#"):
            is_explained = True
        elif not is_explained:
            unexplained.append(line)
    assert unexplained == []


def test_every_variable_with_a_name_of_its_own_is_in_the_configuration_file() -> None:
    text = (ROOT / "config.toml").read_text(encoding="utf-8")
    assert [name for name in NAMED_VARIABLES if name not in text] == []
