"""Where the viewers' files are: Swagger UI and ReDoc come with a package, and nothing is fetched from the network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

_PACKAGE = "aiohttp_swagger3"
_FILES = {
    "swagger-ui.css": "swagger_ui",
    "swagger-ui-bundle.js": "swagger_ui",
    "redoc.standalone.js": "redoc_ui",
}


def viewer_files() -> dict[str, Path]:
    """The files by name. The package is located and never imported: only its files are wanted."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return {}
    folder = Path(spec.origin).parent
    return {name: folder / inside / name for name, inside in _FILES.items()}
