"""``corral version``."""

from __future__ import annotations

from importlib import metadata

import click

from corral.cli.asked import Asked, pass_asked


@click.command(short_help="print the version")
@pass_asked
def version(asked: Asked) -> None:
    """Print the version of what is installed here. `corral health` says the service's."""
    found = own_version()
    if asked.is_json:
        asked.console.say_json({"version": found})
    else:
        asked.console.say(f"corral {found}")


def own_version() -> str:
    """As the package says; "unknown" where it is run without being installed."""
    try:
        return metadata.version("ollama-corral")
    except metadata.PackageNotFoundError:
        return "unknown"
