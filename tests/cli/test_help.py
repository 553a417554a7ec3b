"""Help is complete, and says the same wherever it is said."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from corral.cli.asked import Asked
from corral.cli.program import PLACES, Program
from tests.support.command_line import NOBODY, ran

WITHOUT_DEFAULT = {
    "--url", "--key", "--config", "--name", "--output", "--expires-in", "--help", "--image", "--host", "--port",
}  # fmt: skip
"""Those that must be given, or whose default is said in other words."""


def commands() -> Iterator[tuple[str, click.Command]]:
    program = Program(serves=False)
    context = click.Context(program, obj=Asked())
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {below}", one) for below, one in command.commands.items())


ALL = dict(commands())


@pytest.mark.parametrize("name", ALL)
def test_every_command_and_every_option_of_it_says_what_it_does_and_what_it_does_without(name: str) -> None:
    command = ALL[name]
    assert command.help
    for option in command.params:
        if not isinstance(option, click.Option) or option.is_flag:
            assert not isinstance(option, click.Option) or option.help, option
            continue
        assert option.help, option
        is_told = "default:" in option.help or "May be repeated" in option.help
        assert is_told or set(option.opts) & WITHOUT_DEFAULT, f"{option.opts} names no default"
        if isinstance(option.default, int | str) and not isinstance(option.default, bool):
            assert str(option.default) in option.help


@pytest.mark.parametrize("name", PLACES)
def test_the_list_of_commands_says_of_each_what_it_says_itself(name: str) -> None:
    assert PLACES[name].help == ALL[name].get_short_help_str(200)


@pytest.mark.parametrize("name", ALL)
async def test_every_command_shows_its_help(name: str) -> None:
    done = await ran(*name.split(), "--help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"Usage: corral {name}")


@pytest.mark.parametrize("name", [name for name, place in PLACES.items() if not place.is_of_service])
def test_every_command_that_asks_takes_the_same_options(name: str) -> None:
    given = {text for option in ALL[name].params for text in option.opts}
    assert {"--url", "--key", "--json", "--quiet", "--no-color", "--config"} <= given


@pytest.mark.parametrize("place", [0, 1])
async def test_global_options_hold_before_and_behind_a_command(place: int) -> None:
    options = ["--url", NOBODY, "--json", "--quiet"]
    done = await ran(*["list"][:place], *options, *["list"][place:])
    assert (done.status, done.error["code"]) == (3, "connection_failed")


async def test_the_last_word_wins() -> None:
    done = await ran("--url", "http://127.0.0.1:1", "list", "--url", NOBODY)
    assert NOBODY in done.err


def test_the_key_is_said_to_be_seen() -> None:
    [key] = [option for option in ALL["ask"].params if "--key" in option.opts]
    assert isinstance(key, click.Option)
    assert "process lists" in (key.help or "")
