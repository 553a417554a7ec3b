"""Measurements, each against a baseline of the same run. ``python -m tests.bench`` runs them; see ``__main__``."""
