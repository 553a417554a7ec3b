"""``check``."""

from __future__ import annotations

import click

from service.cli.given import given_of
from service.cli.listening_options import begin, reader, takes_address


@click.command("check", short_help="say whether the service could run here")
@takes_address
@click.pass_context
def check_command(context: click.Context, host: str | None, port: int | None) -> int:
    """Say whether configuration, database and backends can be used; it works while the service runs, too. The exit
    status is 1 when something is wrong.
    """
    given = given_of(context)
    config = begin(reader(given, host, port))
    from service.cli.check import check
    from service.cli.running import run

    return run(check(config, given))
