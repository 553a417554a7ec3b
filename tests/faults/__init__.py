"""The fault matrix: what goes wrong, what is right then, and a check of each row on the running service."""

from tests.faults import (
    client_rows,
    machine_rows,
    ollama_rows,
    silence_rows,
    stream_rows,
    time_rows,
    version_rows,
    words_rows,
)
from tests.faults.client_rows import CLIENT
from tests.faults.machine_rows import MACHINE
from tests.faults.ollama_rows import OLLAMA
from tests.faults.rows import FOUND, Row

__all__ = [
    "ROWS",
    "Row",
    "client_rows",
    "machine_rows",
    "ollama_rows",
    "silence_rows",
    "stream_rows",
    "time_rows",
    "version_rows",
    "words_rows",
]

_ORDER = (OLLAMA, CLIENT, MACHINE)

ROWS = sorted(FOUND, key=lambda row: _ORDER.index(row.where))
