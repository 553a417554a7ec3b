"""The command line."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from service.cli.admin_client import show_backends
from service.cli.check import check
from service.cli.keys import add_key_commands, run_key_command
from service.cli.logs import begin_log, note, say, set_level
from service.cli.serve import serve
from service.config import Config, load_config, read_env_file, taken_names
from service.errors import StartError
from service.simulated.server import SimulatedServer
from service.simulated.settings import DEMO_SETTINGS

_SWITCH_SECONDS = 0.0005


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit status."""
    options = _parser().parse_args(arguments)
    begin_log()
    try:
        read = partial(_read, options)
        config = read()
        set_level(config.log.level)
        match options.command:
            case "check":
                return _run(check(config))
            case "demo":
                return _run(_demo(config, read))
            case "keys":
                # What is printed says it already; a service that runs has it in its own log.
                logging.getLogger("service.audit").setLevel(logging.WARNING)
                return _run(run_key_command(config, options))
            case "backends":
                return _run(show_backends(config, options.action, options.name))
            case _:
                return _run(serve(config, read))
    except StartError as error:
        note(f"corral: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


_SAYING = ("check", "demo", "serve", None)
"""The commands that tell what was taken from ``.env``. The others print what was asked for and nothing else."""
_DEMO_SETTINGS = {"server.host": "localhost"}
"""What a demo shows is for who has started it, unless the command line or the environment says otherwise."""


def _read(options: argparse.Namespace) -> Config:
    """The configuration as it is now. Raises ConfigurationError."""
    env_file = read_env_file(os.environ)
    names = taken_names(env_file, os.environ) if env_file is not None else []
    if env_file is not None and names and options.command in _SAYING:
        say(f"Settings from {env_file.path}: {', '.join(names)}")
    given = {"server.host": options.host, "server.port": options.port}
    instead = _DEMO_SETTINGS if options.command == "demo" else {}
    return load_config(options.config, os.environ, given, env_file=env_file, instead_of_file=instead)


def _parser() -> argparse.ArgumentParser:
    shared = _shared_options(argparse.SUPPRESS)
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="A durable queue and gateway in front of Ollama.",
        parents=[_shared_options(None)],
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands (none: serve)")
    commands.add_parser("serve", parents=[shared], help="serve (the same as no command)")
    commands.add_parser("check", parents=[shared], help="say whether configuration, database and backends can be used")
    commands.add_parser("demo", parents=[shared], help="serve with a simulated Ollama inside and a temporary database")
    add_key_commands(commands, shared)
    backends = commands.add_parser("backends", parents=[shared], help="show the running service's backends")
    backends.set_defaults(action=None, name=None)
    actions = backends.add_subparsers(dest="action", metavar="ACTION")
    for action, what in (("drain", "send this backend nothing more"), ("resume", "undo a drain")):
        actions.add_parser(action, help=what).add_argument("name", metavar="NAME", help="the backend's name")
    return parser


def _shared_options(default: str | None) -> argparse.ArgumentParser:
    """What may stand before a command and behind it. A command without one must leave alone what stands before it."""
    shared = argparse.ArgumentParser(add_help=False)
    add = partial(shared.add_argument, default=default)
    add("--config", type=Path, help="the configuration file (default: ./config.toml)")
    add("--host", help="the address to listen on, or several with commas between")
    add("--port", type=int, help="the port to listen on")
    return shared


async def _demo(config: Config, read: Callable[[], Config]) -> int:
    """Run the service so that it needs nothing from outside and leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="corral-demo-") as folder:
        async with SimulatedServer(DEMO_SETTINGS) as simulated:
            say("DEMO: answers are simulated, no model is running; the database is temporary.")
            path = Path(folder) / "queue.db"

            def demonstrated(config: Config) -> Config:
                backend = config.backends[0].model_copy(
                    update={"name": "simulated", "url": simulated.url, "headers": {}, "models": ()}
                )
                database = config.database.model_copy(update={"url": "", "path": path})
                return config.model_copy(update={"backends": (backend,), "database": database})

            return await serve(demonstrated(config), lambda: demonstrated(read()))


def _run(work: Coroutine[Any, Any, int]) -> int:
    # The database's thread gives up Python's lock at every step. At the usual 5 ms it would often wait that long to
    # get it back from a busy event loop (measured: 3,200 stored jobs a second at 5 ms, 5,300 at 0.5 ms).
    sys.setswitchinterval(_SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def _loop_factory() -> Any:
    """uvloop where it exists, which answers about a third more requests a second here; else asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
