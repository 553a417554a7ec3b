"""What the process says: the log on stderr, one line for each event, and on stdout what a person is to see."""

from __future__ import annotations

import io
import logging
import sys


def begin_log() -> None:
    """Write what is logged to stderr, from INFO on, and what is printed as it comes, also where nobody looks at a
    terminal: a service manager's journal would have it at the end only.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)


def set_level(name: str) -> None:
    """Log from this level on: ``DEBUG``, ``INFO``, … The libraries' own lines begin at INFO at the lowest: some write
    whole statements at DEBUG, with the prompts in them.
    """
    level = logging.getLevelNamesMapping()[name]
    logging.getLogger("service").setLevel(level)
    logging.getLogger().setLevel(max(level, logging.INFO))
