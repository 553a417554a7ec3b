"""What fits together, said by the digests of models: so it can be kept while names come to mean other models.

Pure: sets are JSON arrays here, as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from service.backend.fitting import REMEMBERED_SETS, FittingSets
from service.job import model_of_runner


class FitsByDigest(NamedTuple):
    """What is known of one server."""

    version: str
    """That of the Ollama which showed it."""
    fitting: Sequence[Sequence[Sequence[str]]]
    """Sets of runners that fit together, each runner as its model's digest and its reloading options; the latest stands
    last.
    """
    unfit: Sequence[tuple[Sequence[str], int]]
    """Sets of digests of models that do not fit, and until when that holds."""


def by_digest(fitting: FittingSets, version: str, digests: Mapping[str, str]) -> FitsByDigest:
    """What can be kept: sets of which the digest of every model is known. ``digests`` is by the models' names."""
    sets = [_digested(known, digests) for known in (*fitting.old, *fitting.sets)]
    unfit = [(sorted(digests[model] for model in models), until)
             for models, until in fitting.unfit.items() if models <= digests.keys()]  # fmt: skip
    return FitsByDigest(version, [one for one in sets if one][-REMEMBERED_SETS:], unfit[-REMEMBERED_SETS:])


def restore(kept: FitsByDigest, fitting: FittingSets, version: str, names: Mapping[str, str]) -> None:
    """Take over what holds for a server of this version. ``names`` is by digest the name that a runner has there."""
    sets = [frozenset(_named(known, names)) for known in kept.fitting if all(one[0] in names for one in known)]
    # With another version a model may take less memory, and then what did not fit may.
    unfit = kept.unfit if kept.version == version else ()
    fitting.restore(
        [known for known in sets if len(known) > 1],
        [(models, until) for digests, until in unfit if (models := _models(digests, names))],
    )


def _digested(runners: Iterable[str], digests: Mapping[str, str]) -> list[tuple[str, str]]:
    """The runners by digest; none where one is not known."""
    result = []
    for runner in sorted(runners):
        model, _, options = runner.partition(" ")
        if model not in digests:
            return []
        result.append((digests[model], options))
    return sorted(result)


def _named(known: Iterable[Sequence[str]], names: Mapping[str, str]) -> Iterator[str]:
    for digest, options in known:
        yield f"{names[digest]} {options}" if options else names[digest]


def _models(digests: Sequence[str], names: Mapping[str, str]) -> frozenset[str]:
    """The models by the names that their runners have; none where one is not there, or two have become one."""
    models = frozenset(model_of_runner(names[digest]) for digest in digests if digest in names)
    return models if len(models) == len(digests) else frozenset()
