"""``demo``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from service.cli.given import given_of
from service.cli.listening_options import begin, reader, takes_address
from service.cli.logs import say
from service.config import Config

_SETTINGS = {"server.host": "localhost"}
"""What a demo shows is for who has started it, unless the command line or the environment says otherwise."""


@click.command("demo", short_help="run the service with a simulated Ollama inside")
@takes_address
@click.pass_context
def demo_command(context: click.Context, host: str | None, port: int | None) -> int:
    """Run the service so that it needs nothing from outside and leaves nothing behind: answers are simulated, and the
    database is temporary.
    """
    read = reader(given_of(context), host, port, _SETTINGS)
    config = begin(read)
    from service.cli.running import run

    return run(_demonstrate(config, read))


async def _demonstrate(config: Config, read: Callable[[], Config]) -> int:
    from service.cli.serve import serve
    from service.simulated.server import SimulatedServer
    from service.simulated.settings import DEMO_SETTINGS

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
