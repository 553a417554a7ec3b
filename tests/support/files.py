"""What is in the files of a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def texts_in(folder: Path, texts: Iterable[str]) -> dict[str, list[str]]:
    """Which of these texts are in which files of the folder, at whatever place."""
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    found = {text: [name for name, data in contents.items() if text.encode() in data] for text in texts}
    return {text: names for text, names in found.items() if names}
