"""Keys and what was asked with them."""

STATEMENTS = (
    # The columns are the fields of service.key.Key, and the hash by which a key is found.
    """
    CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        hash TEXT NOT NULL,
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        requests_per_hour {integer},
        concurrency {integer},
        models TEXT NOT NULL,
        max_priority {integer},
        weight {real} NOT NULL,
        owner_header TEXT,
        expires_at {integer},
        is_active {integer} NOT NULL,
        created_at {integer} NOT NULL,
        last_used_at {integer}
    ){strict}
    """,
    "CREATE UNIQUE INDEX keys_hash ON keys (hash)",
    # The secret that was made here, a value by which a wrong secret is recognised, and the version of the keys.
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL){strict}",
    # One row for each request of a route that makes jobs.
    """
    CREATE TABLE usage_log (
        seq {growing_key},
        at {integer} NOT NULL,
        key_id TEXT,
        owner TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        method TEXT NOT NULL,
        status_code {integer} NOT NULL,
        model TEXT,
        job_id TEXT,
        job_status TEXT,
        prompt_tokens {integer},
        completion_tokens {integer},
        response_ms {integer} NOT NULL,
        queue_ms {integer}
    ){strict}
    """,
    "CREATE INDEX usage_log_at ON usage_log (at)",
    "CREATE INDEX usage_log_by_key ON usage_log (key_id, at) WHERE key_id IS NOT NULL",
    "CREATE INDEX usage_log_by_job ON usage_log (job_id) WHERE job_id IS NOT NULL",
    # With each row the statistics begin anew. The log stays.
    "CREATE TABLE usage_periods (seq {growing_key}, started_at {integer} NOT NULL, key_id TEXT){strict}",
    # For counting what a key has made in the last hour, which its limit needs after a restart, and for the key's list.
    "CREATE INDEX jobs_by_key ON jobs (key_id, created_at) WHERE key_id IS NOT NULL",
)
