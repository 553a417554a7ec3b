"""The options that every command takes that asks a model."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from corral.cli.completing import complete_models
from corral.cli.optional_values import OptionalValue

F = TypeVar("F", bound=Callable[..., Any])

_LEVELS = ("low", "medium", "high", "max", "true", "false")
_LARGEST_IMAGE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Wished:
    """How a model is to be asked, as :meth:`corral.AsyncClient.submit` takes it; None: as the server does by itself."""

    model: str | None = None
    system: str | None = None
    options: dict[str, Any] | None = None
    format: Any = None
    think: bool | str | None = None
    images: list[str] | None = None
    priority: str | None = None
    max_tokens: int | None = None

    def keywords(self) -> dict[str, Any]:
        """What was given, by name."""
        return {name: value for name, value in self.__dict__.items() if value is not None}


def takes_wishes(function: F) -> F:
    """Give a command the options; they come as keywords, for :func:`wished`."""
    return _with_wishes(function, ("-o", "--option"))


def takes_wishes_beside_output(function: F) -> F:
    """The same where ``-o`` is the output."""
    return _with_wishes(function, ("--option",))


def _with_wishes(function: F, names: tuple[str, ...]) -> F:
    options = (
        click.option(
            "-m",
            "--model",
            metavar="MODEL",
            shell_complete=complete_models,
            help="The model (default: OLLAMA_MODEL or the service's).",
        ),
        click.option("-s", "--system", metavar="TEXT", help="The system prompt (default: the model's own)."),
        click.option(
            *names,
            "options",
            nargs=2,
            multiple=True,
            metavar="NAME VALUE",
            help=f"An option of Ollama's, such as: {names[0]} num_ctx 8192. May be repeated.",
        ),
        click.option(
            "--format",
            "format_",
            metavar="json|FILE",
            help="Have JSON answered: any, or as the JSON schema in FILE (default: text).",
        ),
        click.option(
            "--think",
            cls=OptionalValue,
            takes=lambda word: word in _LEVELS,
            left_out="true",
            type=click.Choice(_LEVELS),
            metavar="[low|medium|high|max|true|false]",
            help="Have the model think first, or not (default: as the model does by itself).",
        ),
        click.option(
            "-a",
            "--image",
            "images",
            multiple=True,
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="IMAGE",
            help="A picture for models that see. May be repeated.",
        ),
        click.option(
            "--priority",
            type=click.Choice(("high", "normal", "low")),
            help="The place in the queue among one's own jobs (default: normal; batch: low).",
        ),
        click.option(
            "--max-tokens",
            type=click.IntRange(min=1),
            metavar="N",
            help="Tokens that are answered at most (default: as the model does).",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def wished(
    *,
    model: str | None,
    system: str | None,
    options: tuple[tuple[str, str], ...],
    format_: str | None,
    think: str | None,
    images: tuple[Path, ...],
    priority: str | None,
    max_tokens: int | None,
) -> Wished:
    """The options as they were given. Raises UsageError for a file that cannot be used."""
    return Wished(
        model=model,
        system=system,
        options={name: _value(value) for name, value in options} or None,
        format=None if format_ is None else _format(format_),
        think={"true": True, "false": False}.get(think, think) if think is not None else None,
        images=[_image(path) for path in images] or None,
        priority=priority,
        max_tokens=max_tokens,
    )


def prompt_of(given: str | None) -> str:
    """The prompt: standard input, or the argument with standard input behind it. Raises UsageError where both lack."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else _piped()
    if given and piped.strip():
        return f"{given}\n\n{piped}"
    prompt = given or piped
    if not prompt.strip():
        raise click.UsageError("no prompt: give one as an argument, or on standard input")
    return prompt


def _piped() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"standard input is no text in UTF-8: {error}") from None


def _value(text: str) -> Any:
    """A number, a truth, a list where it reads as one; else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _format(given: str) -> Any:
    if given == "json":
        return given
    try:
        schema = json.loads(Path(given).read_text(encoding="utf-8"))
    except OSError as error:
        raise click.UsageError(f"--format {given}: {error.strerror}; give json, or a file with a JSON schema") from None
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--format {given}: is no JSON: {error}") from None
    if not isinstance(schema, dict):
        raise click.UsageError(f"--format {given}: is no JSON schema, which is an object")
    return schema


def _image(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_IMAGE_BYTES:
            raise click.UsageError(f"--image {path}: is larger than {_LARGEST_IMAGE_BYTES // 2**20} MiB")
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise click.UsageError(f"--image {path}: {error.strerror}") from None
