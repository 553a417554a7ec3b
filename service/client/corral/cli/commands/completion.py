"""``corral completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from corral.cli.asked import Asked, pass_asked

_SHELLS = ("bash", "zsh", "fish")
COMPLETED = "corral"
VARIABLE = "_CORRAL_COMPLETE"


@click.command(short_help="print what makes a shell complete commands")
@click.argument("shell", type=click.Choice(_SHELLS))
@pass_asked
def completion(asked: Asked, shell: str) -> None:
    """Print what makes a shell complete `corral`: commands, options, models and the ids of recent jobs.

    \b
    bash: eval "$(corral completion bash)"         in ~/.bashrc
    zsh:  eval "$(corral completion zsh)"          in ~/.zshrc
    fish: corral completion fish | source          in ~/.config/fish/config.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    # Its source is a template alone; what would be completed plays no part in it.
    asked.console.say(found(click.Command(COMPLETED), {}, COMPLETED, VARIABLE).source_template % _names())


def _names() -> dict[str, str]:
    return {
        "complete_func": f"_{COMPLETED}_completion",
        "complete_var": VARIABLE,
        "prog_name": COMPLETED,
    }
