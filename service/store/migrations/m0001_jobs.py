"""Jobs, their bodies and results, what each owner was served, and the processes that share the work."""

STATEMENTS = (
    # The hot table is narrow: it holds what the order and the lists need. Its columns are fields of service.job.Job.
    """
    CREATE TABLE jobs (
        seq {growing_key},
        id TEXT NOT NULL,
        door TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        model TEXT NOT NULL,
        model_key TEXT NOT NULL,
        runner TEXT NOT NULL,
        owner TEXT NOT NULL,
        key_id TEXT,
        priority {integer} NOT NULL,
        is_streamed {integer} NOT NULL,
        status TEXT NOT NULL,
        attempt {integer} NOT NULL,
        failures {integer} NOT NULL,
        crashes {integer} NOT NULL,
        not_before {integer},
        deadline {integer},
        on_disconnect TEXT,
        worker TEXT,
        caller_at TEXT,
        preview TEXT NOT NULL,
        size {integer} NOT NULL,
        error_code TEXT,
        error_message TEXT,
        prompt_tokens {integer},
        completion_tokens {integer},
        load_ms {integer},
        prompt_ms {integer},
        generation_ms {integer},
        created_at {integer} NOT NULL,
        updated_at {integer} NOT NULL,
        started_at {integer},
        first_token_at {integer},
        finished_at {integer}
    ){strict}
    """,
    "CREATE UNIQUE INDEX jobs_id ON jobs (id)",
    # A claim names runner, owner and priority, and takes the smallest seq. Delayed jobs are not in the index.
    # job_statements.py says why it is "seq + 0" and not "seq".
    """
    CREATE INDEX jobs_ready ON jobs (runner, owner, priority, (seq + 0))
    WHERE status = 'queued' AND not_before IS NULL
    """,
    # The oldest ready job of a runner, over all its lines.
    "CREATE INDEX jobs_ready_oldest ON jobs (runner, (seq + 1)) WHERE status = 'queued' AND not_before IS NULL",
    "CREATE INDEX jobs_delayed ON jobs (not_before) WHERE status = 'queued' AND not_before IS NOT NULL",
    "CREATE INDEX jobs_deadline ON jobs (deadline) WHERE status = 'queued' AND deadline IS NOT NULL",
    "CREATE INDEX jobs_reserved ON jobs (caller_at) WHERE status = 'queued' AND caller_at IS NOT NULL",
    "CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL",
    # The lists, newest first. An index that begins with the status would be taken for the queue's statements, too.
    "CREATE INDEX jobs_queued ON jobs ((-seq)) WHERE status = 'queued'",
    "CREATE INDEX jobs_processing ON jobs ((-seq)) WHERE status = 'processing'",
    "CREATE INDEX jobs_completed ON jobs ((-seq)) WHERE status = 'completed'",
    "CREATE INDEX jobs_failed ON jobs ((-seq)) WHERE status = 'failed'",
    "CREATE INDEX jobs_cancelled ON jobs ((-seq)) WHERE status = 'cancelled'",
    "CREATE INDEX jobs_by_model ON jobs (model_key, (-seq))",
    "CREATE INDEX jobs_by_owner ON jobs (owner, (-seq))",
    # Until migration 5 the gauges were counted from this index alone, once, at the start.
    "CREATE INDEX jobs_gauges ON jobs (runner, owner, priority, status, size)",
    """
    CREATE TABLE bodies (
        seq {integer} PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
        prompt TEXT NOT NULL,
        request TEXT NOT NULL
    ){strict}
    """,
    # A row holds the output of a finished job's last attempt: its segments, as a JSON array of [kind, data].
    """
    CREATE TABLE results (
        seq {integer} PRIMARY KEY REFERENCES jobs (seq) ON DELETE CASCADE,
        attempt {integer} NOT NULL,
        segments TEXT NOT NULL
    ){strict}
    """,
    # What each owner has been served on each runner, in backend milliseconds divided by its weight.
    """
    CREATE TABLE served (
        runner TEXT NOT NULL,
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
        PRIMARY KEY (runner, owner)
    ){strict}
    """,
    # The largest value of served that any claim on a runner has reached; newcomers begin there.
    """
    CREATE TABLE runners (
        runner TEXT PRIMARY KEY,
        reached {real} NOT NULL,
        mean_ms {real},
        samples {integer} NOT NULL
    ){strict}
    """,
    # One row for each process. A process with too old a heartbeat is dead, and its jobs are put back.
    """
    CREATE TABLE workers (id TEXT PRIMARY KEY, started_at {integer} NOT NULL, heartbeat_at {integer} NOT NULL){strict}
    """,
)
