"""``.env``: variables that stand in a file beside a program, as Docker Compose and many others read them, too."""

from __future__ import annotations

import io
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dotenv.parser import Binding, parse_stream
from dotenv.variables import parse_variables

from service.errors import ConfigurationError


class EnvFile(NamedTuple):
    """A file's variables, ours and those of others, in their order there; None for a name without "=" behind it."""

    path: Path
    variables: Mapping[str, str | None]


def read_env_file(environ: Mapping[str, str]) -> EnvFile | None:
    """``.env`` in the working directory; None where there is no such file (a folder of this name is none).

    ``${NAME}`` and ``${NAME:-default}`` stand for another variable, of ``environ`` first, but not within single quotes.
    Raises ConfigurationError, which names the line and never shows what is in it.
    """
    path = Path(".env")
    try:
        if not path.is_file():
            return None
        path = path.absolute()
        data = path.read_bytes()
    except OSError as failure:
        raise ConfigurationError(
            f"{path}: cannot be read ({failure.strerror}): let this user read it, or start in another folder"
        ) from None
    try:
        text = data.decode()
    except UnicodeDecodeError as failure:
        line = data.count(b"\n", 0, failure.start) + 1
        raise ConfigurationError(f"{path}: line {line}: not UTF-8: save the file as UTF-8 text") from None
    variables: dict[str, str | None] = {}
    known = ChainMap[str, str | None](dict(environ), variables)
    for binding in parse_stream(io.StringIO(text, newline="")):
        if binding.error:
            raise ConfigurationError(
                f"{path}: line {_line(binding)}: not NAME=value: write it so, or put # before it; "
                "a value that begins with a quote ends with one"
            )
        if binding.key is not None:
            variables[binding.key] = _resolved(binding, known)
    return EnvFile(path, variables)


def _line(binding: Binding) -> int:
    blank = len(binding.original.string) - len(binding.original.string.lstrip())
    return binding.original.line + binding.original.string.count("\n", 0, blank)


def _resolved(binding: Binding, known: Mapping[str, str | None]) -> str | None:
    value = binding.value
    if value is None or binding.original.string.partition("=")[2].lstrip().startswith("'"):
        return value
    return "".join(atom.resolve(known) for atom in parse_variables(value))
