"""How large the classes of a folder are, read from the source: methods, and what they set on ``self``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_RECORDS = {"NamedTuple", "TypedDict", "BaseModel", "BaseSettings"}
"""Classes of these hold values by their nature: nothing of them is counted."""


@dataclass(frozen=True)
class ClassSize:
    """What one class has, with all that it inherits from our own classes."""

    name: str
    methods: int
    attributes: int
    """0 for a dataclass, whose fields are its record."""


@dataclass
class _Found:
    """A class as it is written."""

    module: str
    name: str
    bases: list[str]
    is_dataclass: bool
    methods: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)


def class_sizes(root: Path, folder: str) -> list[ClassSize]:
    """Every class of a package that is no record. ``root`` is where imports begin."""
    classes: dict[str, _Found] = {}
    for path in sorted((root / folder).rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = _imported(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[f"{module}.{node.name}"] = _found(module, node, names)
    return [_measured(one, classes) for one in classes.values() if not _is_record(one, classes)]


def functions(path: Path) -> Iterator[Function]:
    """Every function and method of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, FUNCTIONS):
            yield node


def _imported(tree: ast.Module) -> dict[str, str]:
    """What the names of a module mean that it has from another."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _found(module: str, node: ast.ClassDef, names: dict[str, str]) -> _Found:
    bases = [_name(base) for base in node.bases]
    is_dataclass = any(_name(decorator) == "dataclass" for decorator in node.decorator_list)
    found = _Found(module, node.name, [names.get(base, base) for base in bases], is_dataclass)
    for method in node.body:
        if isinstance(method, FUNCTIONS):
            found.methods.add(method.name)
            found.attributes |= set(_set_on_self(method))
    return found


def _name(node: ast.expr) -> str:
    """Of ``Generic[T]``, ``dataclass(frozen=True)`` and ``typing.NamedTuple``: the last word before the brackets."""
    match node:
        case ast.Subscript(value=inner) | ast.Call(func=inner):
            return _name(inner)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    raise AssertionError(ast.dump(node))


def _set_on_self(method: Function) -> Iterator[str]:
    if not method.args.args:
        return
    own = method.args.args[0].arg
    for node in ast.walk(method):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute, ctx=ast.Store()) if name == own:
                yield attribute


def _with_bases(one: _Found, classes: dict[str, _Found]) -> Iterator[_Found]:
    yield one
    for base in one.bases:
        known = classes.get(base) or classes.get(f"{one.module}.{base}")
        if known is not None:
            yield from _with_bases(known, classes)


def _is_record(one: _Found, classes: dict[str, _Found]) -> bool:
    return any(base.rpartition(".")[2] in _RECORDS for each in _with_bases(one, classes) for base in each.bases)


def _measured(one: _Found, classes: dict[str, _Found]) -> ClassSize:
    family = list(_with_bases(one, classes))
    methods = set[str]().union(*(each.methods for each in family))
    attributes = set[str]().union(*(each.attributes for each in family))
    return ClassSize(f"{one.module}.{one.name}", len(methods), 0 if one.is_dataclass else len(attributes))
