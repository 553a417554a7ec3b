"""Options whose value may be left out, such as ``--wait [SECONDS]``: what follows one may be the next argument."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click


class ReadingCommand(click.Command):
    """A command that has such options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = {name: one.takes for one in self.params if isinstance(one, OptionalValue) for name in one.opts}
        return super().parse_args(ctx, with_values(args, options))


class OptionalValue(click.Option):
    """An option whose value is the next argument only where ``takes`` says that it can be meant."""

    def __init__(
        self, param_decls: Sequence[str], takes: Callable[[str], bool], left_out: str, **settings: Any
    ) -> None:
        settings |= {"is_flag": False, "flag_value": left_out}
        super().__init__(param_decls, **settings)
        self.takes = takes


def with_values(arguments: Iterable[str], options: Mapping[str, Callable[[str], bool]]) -> list[str]:
    """The arguments, with ``--name value`` as ``--name=value``; where the value is left out, click is told so by
    putting the option behind everything else, before a ``--``.
    """
    before: list[str] = []
    bare: list[str] = []
    rest = list(arguments)
    while rest and rest[0] != "--":
        argument = rest.pop(0)
        takes = options.get(argument)
        if takes is None:
            before.append(argument)
        elif rest and rest[0] != "--" and takes(rest[0]):
            before.append(f"{argument}={rest.pop(0)}")
        else:
            bare.append(argument)
    return [*before, *bare, *rest]


def is_number(text: str) -> bool:
    """Whether it is a number of seconds."""
    try:
        return float(text) >= 0
    except ValueError:
        return False
