"""The models that each backend told of last, for callers of lists while it is away."""

STATEMENTS = (
    # By the backend's address, without credentials. The entries are a JSON array, each as the backend sent it.
    """
    CREATE TABLE model_lists (
        backend TEXT PRIMARY KEY,
        entries TEXT NOT NULL,
        told_at {integer} NOT NULL
    ){strict}
    """,
)
