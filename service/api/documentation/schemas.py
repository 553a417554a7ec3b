"""The models as JSON Schema, with what their docstrings say."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

_PLACE = "#/components/schemas/"
_NOT_OURS = (BaseModel, dict, object)
"""Classes that models inherit from and whose source is not read: they describe no field of ours, and reading pydantic's
takes 2 MB.
"""


class Schemas:
    """The schemas of ``kinds``, which are told apart by identity. Those that have a name are ``components``."""

    def __init__(self, kinds: Iterable[Any]) -> None:
        self._kinds = {id(kind): kind for kind in kinds}
        found, shared = TypeAdapter.json_schemas(
            [(key, "validation", TypeAdapter(kind)) for key, kind in self._kinds.items()],
            ref_template=_PLACE + "{model}",
            schema_generator=_Described,
        )
        self._found = {key: schema for (key, _), schema in found.items()}
        self.components: dict[str, Any] = shared.get("$defs", {})

    def find(self, kind: Any) -> JsonSchemaValue:
        """The schema of one kind; a reference when it is a component."""
        return self._found[id(kind)]

    def take(self, kind: Any) -> JsonSchemaValue:
        """The schema of one component in full, which is then no longer among the components."""
        name = str(self.find(kind)["$ref"]).removeprefix(_PLACE)
        return dict(self.components.pop(name))


class _Described(GenerateJsonSchema):
    """Takes the docstring below a field for its description. Titles are left out, since they repeat the names, and so
    are defaults of null, since they only say that a field may be missing.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        written = super().default_schema(schema)
        if written.get("default", ...) is None:
            del written["default"]
        return written

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        return _described(super().model_schema(schema), schema["cls"])

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        written = super().typed_dict_schema(schema)
        return _described(written, schema["cls"]) if "cls" in schema else written


def _described(schema: JsonSchemaValue, kind: type) -> JsonSchemaValue:
    for base in reversed(_bases_of(kind)):
        for name, words in _words_of_module(base.__module__).get(base.__name__, {}).items():
            field = schema.get("properties", {}).get(name)
            if field is not None:
                field["description"] = words
    return schema


def _bases_of(kind: type) -> list[type]:
    """The class and the classes that its fields come from. A TypedDict has no bases at runtime, only original ones."""
    bases = [base for base in getattr(kind, "__orig_bases__", kind.__bases__) if isinstance(base, type)]
    return [kind, *(each for base in bases if base not in _NOT_OURS for each in _bases_of(base))]


@lru_cache
def _words_of_module(name: str) -> dict[str, dict[str, str]]:
    """The docstrings below the fields of a module's classes, by class and field; empty where there is no source."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[name]))
    except (KeyError, OSError, TypeError):
        return {}
    return {node.name: _words_of_fields(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _words_of_fields(node: ast.ClassDef) -> dict[str, str]:
    words = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                words[name] = inspect.cleandoc(text).replace("\n", " ")
    return words
