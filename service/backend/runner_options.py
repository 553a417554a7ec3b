"""Which options make another runner of a model, by Ollama's own comparison (wire contract 4.4).

Two keys for what Ollama serves with one runner would cost loads that are none; one key for what it does not would make
it load in a middle of its work. So options are merged only where it is known that they are no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.job import key_of_options, model_of_runner, options_of_runner

_DRAFT_TOKENS = 4
"""``draft_num_predict`` of a model with a draft, when nothing is said of it; without one it is 0."""
_NO_SHIFT = "deepseek2"
"""The family that has no context shift unless it is asked for; all others have it unless it is forbidden."""


class ModelTraits(NamedTuple):
    """What of a model decides which options make another runner, as one backend tells it."""

    is_remote: bool = False
    """Ollama's cloud runs it: there is no runner here."""
    is_mlx: bool = False
    """Its runner takes no options."""
    families: frozenset[str] = frozenset()
    own: frozenset[str] | None = None
    """The reloading options that its own parameters set; None: not known."""
    has_draft: bool = False


def merged(runner: str, told: Sequence[ModelTraits]) -> str:
    """The key under which jobs of this runner wait: without what makes no difference to whoever has it."""
    if not told:
        return runner
    options = options_of_runner(runner)
    if not options:
        return runner
    if all(one.is_remote or one.is_mlx for one in told):
        return model_of_runner(runner)
    left = {name: value for name, value in options.items() if not all(_is_default(name, value, one) for one in told)}
    return runner if len(left) == len(options) else key_of_options(model_of_runner(runner), left)


def _is_default(name: str, value: object, traits: ModelTraits) -> bool:
    """Whether to say this is to say nothing."""
    if traits.is_remote or traits.is_mlx:
        return True
    if name == "shift":
        return bool(traits.families) and value == (_NO_SHIFT not in traits.families)
    if traits.own is None or name in traits.own:
        return False
    if name == "num_thread":
        return value == 0
    return name == "draft_num_predict" and value == (_DRAFT_TOKENS if traits.has_draft else 0)
