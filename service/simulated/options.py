"""The `options` of a request: their types, and what of them belongs to the runner (wire contract 0 and 4.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.simulated.errors import ReplyError
from service.simulated.models import SimulatedModel

_TYPES = {
    "num_ctx": "integer",
    "num_batch": "integer",
    "num_gpu": "integer",
    "main_gpu": "integer",
    "num_thread": "integer",
    "draft_num_predict": "integer",
    "num_keep": "integer",
    "seed": "integer",
    "num_predict": "integer",
    "top_k": "integer",
    "repeat_last_n": "integer",
    "top_p": "float32",
    "min_p": "float32",
    "typical_p": "float32",
    "repeat_penalty": "float32",
    "temperature": "float32",
    "presence_penalty": "float32",
    "frequency_penalty": "float32",
    "use_mmap": "boolean",
    "stop": "array",
}


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """What a runner is started with: a request that wants another value makes it start again."""

    num_ctx: int
    num_batch: int = 512
    num_gpu: int = -1
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int = 0
    draft_num_predict: int = 0
    shift: bool = True

    def fits(self, wanted: RunnerOptions) -> bool:
        """Whether a runner with these options can serve a request for `wanted`."""
        return self == wanted or (
            self._always_compared() == wanted._always_compared()
            and (wanted.num_gpu < 0 or self.num_gpu == wanted.num_gpu)
            and (wanted.use_mmap is None or self.use_mmap == wanted.use_mmap)
        )

    def _always_compared(self) -> tuple[object, ...]:
        return (
            self.num_ctx,
            self.num_batch,
            self.main_gpu,
            self.num_thread,
            self.draft_num_predict,
            self.shift,
        )


@dataclass(frozen=True, slots=True)
class Options:
    """What the simulation makes use of. `num_predict` 0 is without end, negative is up to ten contexts."""

    runner: RunnerOptions
    num_predict: int = -1
    stop: tuple[str, ...] = ()


def read_options(model: SimulatedModel, asked: Mapping[str, Any], *, shift: bool, automatic_context: int) -> Options:
    """Model parameters under the request's own; raises the 500 for a wrong type that is the caller's fault."""
    values = dict(model.parameters)
    for name, value in asked.items():
        if value is not None:
            _check(name, value)
            values[name] = value
    context = int(values.get("num_ctx") or automatic_context)
    runner = RunnerOptions(
        num_ctx=min(max(context, 4), model.trained_context),
        num_batch=int(values.get("num_batch", 512)),
        num_gpu=int(values.get("num_gpu", -1)),
        main_gpu=values.get("main_gpu"),
        use_mmap=values.get("use_mmap"),
        num_thread=int(values.get("num_thread", 0)),
        draft_num_predict=int(values.get("draft_num_predict", 4 if model.has_draft else 0)),
        shift=shift,
    )
    return Options(runner, int(values.get("num_predict", -1)), tuple(values.get("stop", ())))


def _check(name: str, value: Any) -> None:
    wanted = _TYPES.get(name)
    match value:
        case bool():
            found = {"boolean"}
        case int() | float():
            found = {"integer", "float32"}
        case list():
            found = {"array"}
        case _:
            found = set()
    if wanted is not None and wanted not in found:
        raise ReplyError(500, f'option "{name}" must be of type {wanted}')
    if wanted == "array" and not all(isinstance(item, str) for item in value):
        raise ReplyError(500, f'option "{name}" must be of an array of strings')
