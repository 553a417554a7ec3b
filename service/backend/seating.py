"""Which models a backend serves one request at a time, however many seats it has."""

from __future__ import annotations

from collections.abc import Iterable

from service.backend.models import InstalledModel, Serial
from service.backend.overlap import OverlapWatch
from service.backend.sharing import runs_here
from service.job import model_key


class Seating:
    """What ``/api/tags`` says of one backend's models, and what their replies have shown."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Serial] = {}
        self.overlap = OverlapWatch()
        """For the models of which ``/api/tags`` says nothing. Of models that share a runner it knows the one whose name
        that runner has.
        """

    def note_installed(self, installed: Iterable[InstalledModel]) -> None:
        """Remember what ``/api/tags`` says."""
        serial = ((model_key(model.name), model.serial) for model in installed if runs_here(model))
        self._by_kind = {name: why for name, why in serial if why is not None}

    def why_serial(self, model: str) -> Serial | None:
        """Why the model is served one request at a time; None where nothing says that it is."""
        why = self._by_kind.get(model)
        return Serial.LEARNED if why is None and model in self.overlap.limited else why
