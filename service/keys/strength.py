"""Whether a secret that somebody has made up can be guessed."""

from __future__ import annotations

SHORTEST_SECRET = 32
SHORTEST_DEMO_KEY = 16
PUBLIC = frozenset(
    {
        # Of the compose file and .env for which this service was asked.
        "your-super-secret-key-change-this-in-production",
        "demo-admin-key-12345",
        "demo-user-key-67890",
        # Of our own .env.example.
        "your-own-secret",
        "your-own-secret-of-at-least-32-characters",
        "an-admin-key-for-a-try-out",
        "a-user-key-for-a-try-out",
    }
)
"""Values that anybody can read in documents. They are served all the same, since those documents are followed."""


def weakness(name: str, text: str, shortest: int) -> str | None:
    """What is wrong with the value of this variable, and what to do; None when nothing is. It never tells the value."""
    if text in PUBLIC:
        return f"{name} is a value that stands in public documents, so that anybody may know it; {_remedy(name)}"
    if is_short(text, shortest):
        return f"{name} has {len(text)} characters and may be guessed; {_remedy(name)} of {shortest} or more"
    return None


def is_short(text: str, shortest: int) -> bool:
    """Whether a new value is refused for that."""
    return 0 < len(text) < shortest


def _remedy(name: str) -> str:
    return f"set {name} to a random text (openssl rand -hex 32)"
