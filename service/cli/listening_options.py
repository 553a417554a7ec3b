"""The options of the commands that listen, or look whether they could."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import click

from service.cli.configured import read_config
from service.cli.given import Given
from service.cli.logs import begin_log, say, set_level
from service.config import Config

F = TypeVar("F", bound=Callable[..., Any])


def takes_address(function: F) -> F:
    """Give a command ``--host`` and ``--port``."""
    port = click.option(
        "--port", type=int, metavar="PORT", help="The port to listen on (default: server.port, which is 8000)."
    )
    host = click.option(
        "--host",
        metavar="ADDRESS",
        help="The address to listen on, or several with commas between (default: server.host).",
    )
    return host(port(function))


def reader(
    given: Given, host: str | None, port: int | None, instead_of_file: Mapping[str, Any] | None = None
) -> Callable[[], Config]:
    """What reads the configuration, now and at each reload, and tells what comes from ``.env``."""
    return partial(
        read_config,
        given.config,
        os.environ,
        given={"server.host": host, "server.port": port},
        instead_of_file=instead_of_file,
        say=say,
    )


def begin(read: Callable[[], Config]) -> Config:
    """Begin the log, and read the configuration. Raises StartError."""
    begin_log()
    config = read()
    set_level(config.log.level)
    return config
