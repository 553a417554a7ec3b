"""How properties are tried with the same examples in every run."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

SAME_EVERY_TIME = settings(
    # A failing one is reported as it is: to look for a smaller one takes minutes.
    phases=(Phase.explicit, Phase.generate),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
