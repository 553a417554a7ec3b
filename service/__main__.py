"""``python -m service``: serve, or one of the commands."""

from __future__ import annotations

import sys

from corral.cli import main_of_service

if __name__ == "__main__":
    sys.exit(main_of_service())
