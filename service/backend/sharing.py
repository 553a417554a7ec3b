"""Models that are other names of the same weights: copies, and models made of others with a template or prompt added.

Ollama has one runner for all of them, and lists only the name for which it was loaded (wire contract 4.4, 4.5).
``/api/tags`` does not say which models share their weights. ``/api/show`` does, and is asked only about models that
look alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

from pydantic_core import to_json

from service.backend.models import InstalledModel, has_draft, own_options
from service.backend.placement import is_remote
from service.backend.runner_options import ModelTraits
from service.job import model_key

_WORDS_BYTES = 1 << 20
"""Templates, system prompts and licenses make sizes differ by this at most; the rest of a size is weights."""
_REMEMBERED = 4096


class Sharing:
    """What is known of one backend's models, by digest."""

    def __init__(self) -> None:
        self._weights: dict[str, str] = {}

    def unknown(self, installed: Iterable[InstalledModel]) -> list[InstalledModel]:
        """The models that look like others and were not yet asked about; one of each digest."""
        asked = {model.digest: model for model in _lookalikes(installed) if model.digest not in self._weights}
        return list(asked.values())

    def learn(self, model: InstalledModel, weights: str | None) -> None:
        """Remember what the model's runner is made of; None: nobody can tell, and it is taken to be no other's."""
        if len(self._weights) >= _REMEMBERED:
            self._weights.clear()
        self._weights[model.digest] = weights or model.digest

    def traits(self, model: InstalledModel) -> ModelTraits:
        """What decides which options make another runner of the model."""
        # Where nothing could be told, the digest stands in the place of the weights.
        weights = self._weights.get(model.digest, model.digest)
        is_told = weights != model.digest
        return ModelTraits(
            is_remote=not runs_here(model),
            is_mlx=model.is_mlx,
            families=model.families,
            own=own_options(weights) if is_told else None,
            has_draft=is_told and has_draft(weights),
        )

    def names(self, installed: Iterable[InstalledModel]) -> dict[str, str]:
        """By model that shares its runner with others, the model whose name that runner is to have."""
        sharing: defaultdict[str, set[str]] = defaultdict(set)
        for model in _local(installed):
            sharing[self._weights.get(model.digest, model.digest)].add(model_key(model.name))
        return {name: min(names) for names in sharing.values() if len(names) > 1 for name in names}


def runs_here(model: InstalledModel) -> bool:
    """Whether the model has weights and a runner here: those of Ollama's cloud have none (wire contract 3.5)."""
    return not model.is_remote and not is_remote(model_key(model.name))


def _local(installed: Iterable[InstalledModel]) -> Iterator[InstalledModel]:
    return (model for model in installed if model.digest and runs_here(model))


def _lookalikes(installed: Iterable[InstalledModel]) -> Iterator[InstalledModel]:
    """Models of the same details and nearly the same size as another one."""
    alike: defaultdict[bytes, list[InstalledModel]] = defaultdict(list)
    for model in _local(installed):
        alike[to_json(model.entry.get("details"))].append(model)
    for models in alike.values():
        models.sort(key=lambda model: model.size)
        for smaller, larger in pairwise(models):
            if larger.digest != smaller.digest and larger.size - smaller.size <= _WORDS_BYTES:
                yield from (smaller, larger)
