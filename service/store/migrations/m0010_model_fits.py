"""Which models each backend was seen to hold at once, or not to, for the time after a restart."""

STATEMENTS = (
    # By the backend's address, without credentials; true of the version that it had. ``fitting`` is a JSON array of
    # sets of [digest, reloading options], ``unfit`` one of [[digest, …], until when that holds].
    """
    CREATE TABLE model_fits (
        backend TEXT PRIMARY KEY,
        version TEXT NOT NULL,
        fitting TEXT NOT NULL,
        unfit TEXT NOT NULL,
        used_at {integer} NOT NULL
    ){strict}
    """,
)
