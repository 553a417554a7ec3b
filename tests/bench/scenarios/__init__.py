"""The scenarios, one module each: a docstring whose first line says what it measures, and ``measure(bench)``."""
