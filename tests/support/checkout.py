"""Where the checkout's packages are: what every process of the tests imports, also where a copy is installed."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def search_path(checkout: Path = ROOT) -> str:
    """PYTHONPATH for a process that is to run the checkout's code; what is there already follows."""
    packages = (str(checkout), str(checkout / "service" / "client"))
    return os.pathsep.join(filter(None, (*packages, os.environ.get("PYTHONPATH"))))
