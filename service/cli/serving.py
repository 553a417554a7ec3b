"""``serve``."""

from __future__ import annotations

import click

from service.cli.given import given_of
from service.cli.listening_options import begin, reader, takes_address


@click.command("serve", short_help="run the service")
@takes_address
@click.pass_context
def serve_command(context: click.Context, host: str | None, port: int | None) -> int:
    """Run the service, until SIGTERM or Ctrl-C. SIGHUP has it read its configuration again."""
    read = reader(given_of(context), host, port)
    config = begin(read)
    from service.cli.running import run
    from service.cli.serve import serve

    return run(serve(config, read))
