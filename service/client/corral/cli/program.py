"""The one parser: commands are found by name, and loaded when they are asked for."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click

from corral.cli.asked import Asked, asked_of
from corral.cli.exits import EXIT_HELP, Exit, error_json, error_words, exit_status


class Place(NamedTuple):
    """Where a command is, and what the list of commands says of it, without loading it."""

    module: str
    name: str
    help: str
    is_of_service: bool = False
    """It runs a service here, or looks at one, and asks none: no address is of use to it."""


PLACES = {
    "ask": Place("corral.cli.commands.ask", "ask", "ask a model, and print the answer while it is written"),
    "submit": Place("corral.cli.commands.submit", "submit", "queue a prompt, and print its id"),
    "status": Place("corral.cli.commands.jobs", "status", "show where jobs stand"),
    "result": Place("corral.cli.commands.jobs", "result", "print what a job has brought"),
    "watch": Place("corral.cli.commands.watch", "watch", "follow a job live; Ctrl-C leaves it alone"),
    "request": Place("corral.cli.commands.jobs", "request", "print the body with which Ollama is asked"),
    "cancel": Place("corral.cli.commands.cancel", "cancel", "cancel jobs"),
    "list": Place("corral.cli.commands.listing", "list_jobs", "list jobs, newest first"),
    "batch": Place("corral.cli.commands.batch", "batch", "ask every prompt of a file; what is interrupted goes on"),
    "models": Place("corral.cli.commands.models", "models", "list the models"),
    "stats": Place("corral.cli.commands.stats", "stats", "show what the service has done"),
    "health": Place("corral.cli.commands.health", "health", "show how the service is"),
    "backends": Place("corral.cli.commands.backends", "backends", "show the backends; drain or resume one"),
    "keys": Place("service.cli.keys", "keys_command", "create, list and revoke API keys"),
    "serve": Place("service.cli.serving", "serve_command", "run the service", True),
    "demo": Place("service.cli.demonstrating", "demo_command", "run the service with a simulated Ollama inside", True),
    "check": Place("service.cli.checking", "check_command", "say whether the service could run here", True),
    "completion": Place("corral.cli.commands.completion", "completion", "print what makes a shell complete commands"),
    "version": Place("corral.cli.commands.version", "version", "print the version"),
}


def _take(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value:
        asked_of(context).take(str(option.name), value)


def _shared_option(*names: str, **settings: Any) -> click.Option:
    return click.Option(names, expose_value=False, callback=_take, **settings)


_QUIET = [
    _shared_option("--quiet", is_flag=True, help="Say nothing on stderr but errors."),
    _shared_option("--no-color", is_flag=True, help="No colours (also: NO_COLOR in the environment)."),
]
_CONFIG = _shared_option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The service's configuration file, which says where its socket and database are (default: ./config.toml).",
)
_JSON = _shared_option("--json", is_flag=True, help="One JSON object on one line, or one a line; errors too.")
ASKING = [
    _shared_option(
        "--url", metavar="URL", help="The service's address (default: CORRAL_URL, else http://localhost:8000)."
    ),
    _shared_option(
        "--key",
        metavar="KEY",
        help="The API key (default: CORRAL_KEY, which is better: an option is seen in process lists).",
    ),
    _JSON,
    *_QUIET,
    _CONFIG,
]
"""Before or behind every command that asks a service."""
OF_SERVICE = [_JSON, *_QUIET, _CONFIG]
"""The same for commands that run one."""
_LISTENING = [
    click.Option(["--host"], metavar="ADDRESS", help="For serve, demo, check: the address to listen on."),
    click.Option(["--port"], type=int, metavar="PORT", help="For serve, demo, check: the port to listen on."),
]


class Program(click.Group):
    """The commands. Each takes the global options, too; ``serves``: without a command the service is started."""

    def __init__(self, *, serves: bool) -> None:
        super().__init__(
            help="A durable queue and gateway in front of Ollama.", epilog=EXIT_HELP, params=[*ASKING, *_LISTENING]
        )
        self._serves = serves

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = PLACES.get(cmd_name)
        if place is None:
            return None
        try:
            found: click.Command = getattr(import_module(place.module), place.name)
        except ModuleNotFoundError as error:
            if not place.module.startswith("service.") or (error.name or "").partition(".")[0] != "service":
                raise
            raise click.ClickException(f"{cmd_name}: the service is not installed here") from None
        share_options(found, OF_SERVICE if place.is_of_service else ASKING)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands" + (" (none: serve)" if self._serves else "")):
            formatter.write_dl([(name, place.help) for name, place in PLACES.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given, rest, _ = self.make_parser(ctx).parse_args(args=list(args))
        if not rest and "help" not in given:
            args = [*args, "serve" if self._serves else "--help"]
        rest = super().parse_args(ctx, args)
        # What stands before a command that listens is its own.
        own = {name: ctx.params.pop(name) for name in ("host", "port")}
        given = {name: value for name, value in own.items() if value is not None}
        ctx.default_map = {name: given for name, place in PLACES.items() if place.is_of_service}
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # click itself would make a failure of it.
            _leave_pipe()
            raise click.exceptions.Exit(Exit.DONE) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        place = PLACES.get(name or "")
        if place is not None and place.is_of_service:
            asked_of(ctx).refuse_address(str(name))
        return name, command, rest


def share_options(command: click.Command, options: Sequence[click.Option]) -> None:
    """Have a command, and those below it, take the global options too."""
    present = {name for parameter in command.params for name in parameter.opts}
    command.params.extend(option for option in options if not present & set(option.opts))
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            if (below := command.commands.get(name)) is not None:
                share_options(below, options)


def run(name: str, arguments: Sequence[str], *, serves: bool) -> int:
    """Run a command; the exit status. With CORRAL_DEBUG=1 an error has its traceback on stderr."""
    asked = Asked()
    program = Program(serves=serves)
    try:
        outcome = program.main(list(arguments), prog_name=name, standalone_mode=False, obj=asked)
        return outcome if isinstance(outcome, int) else Exit.DONE
    except (KeyboardInterrupt, click.Abort):
        return Exit.INTERRUPTED
    except Exception as error:
        _tell(asked, error, "--json" in arguments)
        if _is_debugging() and not isinstance(error, click.ClickException):
            traceback.print_exception(error)
        return exit_status(error)


def _tell(asked: Asked, error: Exception, wants_json: bool) -> None:
    console = asked.console
    words = error_words(error)
    if not words:
        return
    try:
        if asked.is_json or wants_json:
            console.fail_json(error_json(error))
            return
        context = getattr(error, "ctx", None)
        if isinstance(error, click.UsageError) and context is not None:
            console.fail(context.get_usage())
            console.fail(f"corral: {words} (see {context.command_path} --help)")
            return
        console.fail(f"corral: {words}")
    except BrokenPipeError:
        _leave_pipe()


def _is_debugging() -> bool:
    return os.environ.get("CORRAL_DEBUG", "").strip().lower() not in ("", "0", "false", "no", "off")


def _leave_pipe() -> None:
    """Nobody reads any more: what is still buffered must not fail at the interpreter's exit."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            os.dup2(quiet, stream.fileno())
    os.close(quiet)
