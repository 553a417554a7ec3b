"""The options of ``corral batch`` beside those of everything that asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)
_FORMATS = ("jsonl", "csv", "tsv", "txt")
_MODES = ("bar", "lines", "json", "none")


def takes_batch_options(function: F) -> F:
    """Give the command its options."""
    for option in reversed((*_FILES, *_AMOUNTS, *_WAYS, *_TOLD)):
        function = option(function)
    return function


_FILES = (
    click.option(
        "-o",
        "--output",
        type=_FILE,
        metavar="OUTPUT",
        help="Where the answers go: JSONL, or a table where it ends in .csv or .tsv.",
    ),
    click.option(
        "--failures", type=_FILE, metavar="FILE", help="Where lines go that failed (default: OUTPUT with .failures)."
    ),
    click.option(
        "--input-format", type=click.Choice(_FORMATS), help="What INPUT is (default: as the end of its name says)."
    ),
    click.option(
        "--template",
        metavar="TEXT",
        help="The prompt, with columns or fields in braces: 'Summarise: {text}' (default: the column prompt).",
    ),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Ask the first N alone (default: all)."),
)
_AMOUNTS = (
    click.option(
        "--in-flight",
        type=click.IntRange(min=1, max=100_000),
        default=256,
        metavar="N",
        help="Jobs that wait or run at a time (default: 256).",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(min=1, max=1_000),
        default=8,
        metavar="N",
        help="Calls at a time, for lines of OpenAI's format and at a bare Ollama (default: 8).",
    ),
    click.option(
        "--max-failures", type=click.IntRange(min=1), metavar="N", help="End when N lines have failed (default: never)."
    ),
    click.option(
        "--max-wait",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="End after so long (default: never). It can go on later.",
    ),
)
_WAYS = (
    click.option("--dry-run", is_flag=True, help="Check INPUT, count and estimate, and ask nothing."),
    click.option("--detach", is_flag=True, help="Submit everything and leave; the same command without it collects."),
    click.option("--retry-failed", is_flag=True, help="Ask the failed lines of a finished OUTPUT again."),
    click.option("--restart", is_flag=True, help="Forget what was done, and write OUTPUT anew."),
)
_TOLD = (
    click.option(
        "--price-in",
        type=click.FloatRange(min=0),
        metavar="P",
        help="A million tokens asked cost this (default: unknown).",
    ),
    click.option(
        "--price-out",
        type=click.FloatRange(min=0),
        metavar="P",
        help="A million tokens answered cost this (default: unknown).",
    ),
    click.option(
        "--progress",
        type=click.Choice(_MODES),
        help="How progress is told on stderr (default: bar on a terminal, else a line every 30 s).",
    ),
)
