"""``python -m service``: serve, or one of the commands."""

from __future__ import annotations

import sys

from service.cli.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
