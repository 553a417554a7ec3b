"""What each owner was served is counted by model, and no more by runner.

On each runner an owner stood so far behind where service had got to, or before it: of a model it is the sum of that. So
whoever waits keeps its place, and newcomers begin where all have got to together.
"""

_LINES = "".join(
    f"""
            CASE WHEN count({name}) = 0 THEN NULL ELSE sum(coalesce({name}, reached)) END, max({name}_turn),"""
    for name in ("high", "normal", "low")
).rstrip(",")

STATEMENTS = (
    # The largest value of ``served`` that any claim on a model has reached, and what its jobs cost.
    """
    CREATE TABLE served_models (
        model TEXT PRIMARY KEY,
        reached {real} NOT NULL,
        mean_ms {real},
        samples {integer} NOT NULL
    ){strict}
    """,
    # What each owner has been served on each model, in backend milliseconds divided by its weight.
    """
    CREATE TABLE served_owners (
        model TEXT NOT NULL,
        owner TEXT NOT NULL,
        served {real} NOT NULL,
        turn {integer} NOT NULL,
        reached {real} NOT NULL,
        high {real},
        high_turn {integer},
        normal {real},
        normal_turn {integer},
        low {real},
        low_turn {integer},
        PRIMARY KEY (model, owner)
    ){strict}
    """,
    # More than eight samples are remembered as eight.
    """
    INSERT INTO served_models (model, reached, mean_ms, samples)
    SELECT model, sum(reached),
           CASE WHEN sum(samples) > 0 THEN sum(coalesce(mean_ms, 0) * samples) / sum(samples) END,
           CASE WHEN sum(samples) > 8 THEN 8 ELSE sum(samples) END
    FROM (SELECT {model_of_runner} AS model, reached, mean_ms, samples FROM runners) AS known GROUP BY model
    """,
    # Where an owner has no row it begins as a newcomer, at what is reached there.
    f"""
    INSERT INTO served_owners
        (model, owner, served, turn, reached, high, high_turn, normal, normal_turn, low, low_turn)
    SELECT known.model, owner,
           sum(served - begun) + (SELECT reached FROM served_models WHERE served_models.model = known.model),
           max(turn), sum(known.reached),{_LINES}
    FROM (
        SELECT {{model_of_runner}} AS model, served.*,
               coalesce((SELECT reached FROM runners WHERE runners.runner = served.runner), 0) AS begun
        FROM served
    ) AS known
    GROUP BY known.model, owner
    """,
    "DROP TABLE served",
    "DROP TABLE runners",
)
