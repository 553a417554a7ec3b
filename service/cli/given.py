"""What the command line hands to the commands of the service, which know nothing of it: click's ``context.obj``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import click


class Saying(Protocol):
    """Where it is told: what was asked for on stdout, all else on stderr."""

    def say(self, text: str) -> None: ...

    def say_json(self, value: Any) -> None: ...

    def say_table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None: ...

    def note(self, text: str) -> None: ...


class Asking(Protocol):
    """A client of one service."""

    @property
    def where(self) -> str:
        """Its address, or its socket's path."""

    async def request(self, method: str, path: str, body: Any = None, *, silence_seconds: float | None = None) -> Any:
        """The JSON of the reply. Raises what :attr:`Given.failures` names."""

    async def health(self) -> tuple[int, Any]:
        """Status and JSON of ``GET /health``, whatever the status is."""


class AskingAt(Protocol):
    """Makes a client: of a service's socket, or of the address that was given."""

    def __call__(self, socket: Path | None = None) -> AbstractAsyncContextManager[Asking]: ...


class Given(Protocol):
    """The options that stand before or behind every command."""

    @property
    def url(self) -> str | None:
        """``--url``, else CORRAL_URL."""

    @property
    def config(self) -> Path | None:
        """``--config``."""

    @property
    def is_json(self) -> bool: ...

    @property
    def console(self) -> Saying: ...

    @property
    def asking(self) -> AskingAt: ...

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What a client raises when the service refuses, or cannot be reached."""


def given_of(context: click.Context) -> Given:
    """What was given to this command."""
    found: Given = context.find_root().obj
    return found
