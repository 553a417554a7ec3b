"""What a backend says about its models."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from service.job import RELOADING

_SERIAL_FAMILIES = frozenset(
    {
        "mllama", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "lfm2moe", "nemotron_h",
        "nemotron_h_moe", "nemotron_h_omni",
    }
)  # fmt: skip
"""Ollama gives these one slot, whatever OLLAMA_NUM_PARALLEL says (wire contract 4.1)."""


FOR_EVER = 2**62
"""A time that does not come, in milliseconds."""


class Serial(StrEnum):
    """Why a model's requests are served one at a time."""

    MLX = "mlx"
    """Ollama's runner for MLX has one slot."""
    FAMILY = "family"
    """Models of this family have one slot."""
    EMBEDDING = "embedding"
    """It writes no text; such models have one slot."""
    LEARNED = "learned"
    """Its replies were seen to wait for each other."""


class InstalledModel(NamedTuple):
    """An entry of ``/api/tags``."""

    name: str
    digest: str
    size: int
    entry: dict[str, Any]
    """The whole entry as it came, for those who show it."""

    @property
    def is_remote(self) -> bool:
        """Whether Ollama's cloud runs it, whatever its name here (wire contract 3.5)."""
        return bool(self.entry.get("remote_model") or self.entry.get("remote_host"))

    @property
    def is_mlx(self) -> bool:
        """Whether Ollama's runner for MLX serves it."""
        details = self.entry.get("details")
        return isinstance(details, dict) and details.get("format") == "safetensors"

    @property
    def families(self) -> frozenset[str]:
        """What it is made as; empty where the server does not tell."""
        details = self.entry.get("details")
        if not isinstance(details, dict):
            return frozenset()
        return frozenset(filter(None, [_text(details, "family"), *_texts(details.get("families"))]))

    @property
    def serial(self) -> Serial | None:
        """Why Ollama serves this model one request at a time, where that follows from what it is."""
        if self.is_mlx:
            return Serial.MLX
        if not _SERIAL_FAMILIES.isdisjoint(self.families):
            return Serial.FAMILY
        capabilities = _texts(self.entry.get("capabilities"))
        # Before 0.30 no capabilities are listed: that says nothing.
        return Serial.EMBEDDING if capabilities and "completion" not in capabilities else None


class LoadedModel(NamedTuple):
    """An entry of ``/api/ps``."""

    name: str
    digest: str
    size: int
    """Bytes."""
    size_vram: int
    """Bytes; as many as ``size`` when the model is wholly on the GPU."""
    context_length: int
    expires_at: str
    """RFC 3339, with nanoseconds; once it is past, the model is being unloaded."""
    entry: dict[str, Any]

    @property
    def stays_until_ms(self) -> int:
        """``expires_at`` in milliseconds since the epoch; far away where it does not tell."""
        try:
            return int(datetime.fromisoformat(self.expires_at[:19] + _zone(self.expires_at)).timestamp() * 1000)
        except (ValueError, OverflowError):
            return FOR_EVER


class Listed(NamedTuple):
    """A line of ``/api/ps``, as far as placement goes."""

    model: str
    context_length: int = 0
    stays_until: int = FOR_EVER
    """In milliseconds since the epoch, by the server's clock."""


def installed_models(answer: dict[str, Any]) -> tuple[InstalledModel, ...]:
    """The models of a reply of ``/api/tags``. Raises ValueError when it is not one."""
    return tuple(
        InstalledModel(name=name, digest=_text(entry, "digest"), size=_number(entry, "size"), entry=entry)
        for name, entry in _entries(answer)
    )


_FILES = ("FROM ", "ADAPTER ", "DRAFT ")
"""The commands of a modelfile that name a file; nothing stands behind them for a model without files."""


def weights_of(answer: dict[str, Any]) -> str | None:
    """What a runner is made of, from a reply of ``/api/show``: models that have the same share one, unless a request
    says otherwise (wire contract 4.4). None where it does not tell.

    It is the files named at the head of ``modelfile``, and those of the model's own parameters for which Ollama loads
    it anew.
    """
    files = []
    for line in _text(answer, "modelfile").splitlines():
        if line.startswith(_FILES):
            if len(line.split()) > 1:
                files.append(line)
        elif line and not line.startswith("#"):
            # What follows may hold anything, also lines that look like these.
            break
    parameters = (line.split(None, 1) for line in _text(answer, "parameters").splitlines())
    reloading = sorted(" ".join(one) for one in parameters if one and one[0] in RELOADING)
    return "\n".join([*files, *reloading]) if files else None


def own_options(weights: str) -> frozenset[str]:
    """The reloading options that a model's own parameters set, from what :func:`weights_of` says of it."""
    return frozenset(line.split(None, 1)[0] for line in weights.splitlines()) & frozenset(RELOADING)


def has_draft(weights: str) -> bool:
    """Whether a smaller model drafts for it, from what :func:`weights_of` says of it."""
    return any(line.startswith("DRAFT ") for line in weights.splitlines())


def loaded_models(answer: dict[str, Any]) -> tuple[LoadedModel, ...]:
    """The models of a reply of ``/api/ps``. Raises ValueError when it is not one."""
    return tuple(
        LoadedModel(
            name=name,
            digest=_text(entry, "digest"),
            size=_number(entry, "size"),
            size_vram=_number(entry, "size_vram"),
            context_length=_number(entry, "context_length"),
            expires_at=_text(entry, "expires_at"),
            entry=entry,
        )
        for name, entry in _entries(answer)
    )


def _zone(time: str) -> str:
    """The zone at the end of a time of RFC 3339."""
    if time.endswith(("Z", "z")):
        return "+00:00"
    return time[-6:] if time[-6:-5] in ("+", "-") else ""


def _entries(answer: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if "models" not in answer:
        raise ValueError("a reply without models")
    models = answer["models"] or []
    if not isinstance(models, list):
        raise ValueError("models that are not a list")
    for entry in models:
        name = (entry.get("name") or entry.get("model")) if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise ValueError("a model without a name")
        yield name, entry


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def _number(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    return value if type(value) is int else 0


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
