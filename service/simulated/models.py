"""The models that the simulated Ollama has on its disk, and how their names are matched."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

_NAME_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")

COMPLETION = "completion"
TOOLS = "tools"
THINKING = "thinking"
VISION = "vision"
EMBEDDING = "embedding"
INSERT = "insert"
DECISION = "decision"
IMAGE = "image"

_MLX_FORMAT = "safetensors"
_SERIAL_FAMILIES = frozenset(
    (
        "mllama",
        "qwen3vl",
        "qwen3vlmoe",
        "qwen35",
        "qwen35moe",
        "qwen3next",
        "lfm2",
        "lfm2moe",
        "nemotron_h",
        "nemotron_h_moe",
        "nemotron_h_omni",
    )
)


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """One model. `weights` names the file behind it: copies share it, and with it the runner (wire contract 4.4).

    `format` is "gguf", or "safetensors" for a model of the MLX runner. `families` empty: `family` alone.
    """

    name: str
    capabilities: tuple[str, ...] = (COMPLETION,)
    size: int = 2_019_393_189
    memory_bytes: int = 3_200_000_000
    vram_bytes: int | None = None  # None: all of `memory_bytes`, as on a GPU that holds the whole model
    load_seconds: float = 0.0
    token_seconds: float | None = None  # None: the pace of the settings
    format: str = "gguf"
    family: str = "llama"
    families: tuple[str, ...] = ()
    parameter_size: str = "3.2B"
    quantization: str = "Q4_K_M"
    trained_context: int = 131_072
    embedding_length: int = 64
    has_draft: bool = False  # a small model beside it that guesses tokens ahead
    parameters: tuple[tuple[str, Any], ...] = ()
    modified_at: str = "2026-11-20T10:10:19.96089282Z"
    weights: str = ""
    digest: str = field(default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", full_name(self.name))
        if not self.weights:
            object.__setattr__(self, "weights", hashlib.sha256(f"weights of {self.name}".encode()).hexdigest())
        if not self.digest:
            object.__setattr__(self, "digest", hashlib.sha256(f"manifest of {self.name}".encode()).hexdigest())

    def can(self, capability: str) -> bool:
        return capability in self.capabilities

    @property
    def is_mlx(self) -> bool:
        return self.format == _MLX_FORMAT

    def seats(self, parallel: int) -> int:
        """How many requests its runner serves at once, whatever [OLLAMA_NUM_PARALLEL] says (wire contract 4.1)."""
        is_serial = self.is_mlx or self.family in _SERIAL_FAMILIES or not self.can(COMPLETION)
        return 1 if is_serial else parallel

    @property
    def registry_name(self) -> str:
        """The name with registry and namespace, which is how Ollama words what a model cannot do."""
        namespaced = self.name if "/" in self.name else f"library/{self.name}"
        return namespaced if namespaced.count("/") > 1 else f"registry.ollama.ai/{namespaced}"

    @property
    def owner(self) -> str:
        """The namespace, which `/v1/models` calls the owner."""
        return self.name.split("/")[-2] if "/" in self.name else "library"

    def details(self) -> dict[str, Any]:
        return {
            "parent_model": "",
            "format": self.format,
            "family": self.family,
            "families": list(self.families) or [self.family],
            "parameter_size": self.parameter_size,
            "quantization_level": self.quantization,
        }


def full_name(name: str) -> str:
    """The name with its tag: `llama3.2` is `llama3.2:latest`."""
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def is_valid_name(name: str) -> bool:
    parts = full_name(name).replace(":", "/").split("/")
    return len(parts) <= 4 and all(_NAME_PART.fullmatch(part) for part in parts)


def matched_name(name: str) -> str:
    """What two spellings of one model have in common: case does not count, `:latest` and the library are implied."""
    lowered = full_name(name).lower().removeprefix("registry.ollama.ai/")
    return lowered.removeprefix("library/")


class Catalog:
    """The models on the disk, newest first, as `/api/tags` lists them."""

    def __init__(self, models: Iterable[SimulatedModel]) -> None:
        self._models = {matched_name(model.name): model for model in models}
        self._by_spelling: dict[str, SimulatedModel] = {}

    def __iter__(self) -> Iterator[SimulatedModel]:
        return iter(sorted(self._models.values(), key=lambda model: model.modified_at, reverse=True))

    def find(self, name: str) -> SimulatedModel | None:
        model = self._by_spelling.get(name)
        if model is None and (model := self._models.get(matched_name(name))) is not None:
            self._by_spelling[name] = model
        return model

    def add(self, model: SimulatedModel) -> None:
        self._by_spelling.clear()
        self._models[matched_name(model.name)] = model

    def copy(self, model: SimulatedModel, name: str, modified_at: str) -> SimulatedModel:
        """A second name for the same manifest: the weights stay shared, and with them the runner."""
        copied = replace(model, name=name, modified_at=modified_at)
        self.add(copied)
        return copied

    def remove(self, model: SimulatedModel) -> None:
        self._by_spelling.clear()
        del self._models[matched_name(model.name)]


DEMO_MODELS = (
    SimulatedModel("llama3.2:latest", capabilities=(COMPLETION, TOOLS), load_seconds=0.8),
    SimulatedModel(
        "qwen3:4b",
        capabilities=(COMPLETION, TOOLS, THINKING),
        family="qwen3",
        parameter_size="4.0B",
        size=2_497_293_931,
        memory_bytes=3_900_000_000,
        trained_context=262_144,
        load_seconds=1.2,
    ),
    SimulatedModel(
        "nomic-embed-text:latest",
        capabilities=(EMBEDDING,),
        family="nomic-bert",
        parameter_size="137M",
        quantization="F16",
        size=274_302_450,
        memory_bytes=600_000_000,
        trained_context=2048,
        embedding_length=768,
        load_seconds=0.3,
    ),
)


def _tiny(name: str, second: str, capability: str, size: int) -> SimulatedModel:
    return SimulatedModel(
        name,
        capabilities=(capability,),
        size=size,
        memory_bytes=678_400,
        vram_bytes=0,
        parameter_size="126K",
        quantization="unknown",
        trained_context=2048,
        parameters=(("num_ctx", 512), ("num_predict", 32)),
        modified_at=f"2026-11-20T10:10:{second}Z",
    )


# What the recordings in tests/recordings were made with.
RECORDED_MODELS = (
    _tiny("tiny1", "19.96089282", COMPLETION, 513_365),
    _tiny("tiny2", "20.011108456", COMPLETION, 513_365),
    _tiny("embed", "20.050693887", EMBEDDING, 513_269),
)
