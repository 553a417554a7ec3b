"""Who did what to the keys and to the service."""

STATEMENTS = (
    # The columns are the fields of service.store.audit.AuditRow.
    """
    CREATE TABLE audit (
        seq {growing_key},
        at {integer} NOT NULL,
        last_at {integer} NOT NULL,
        action TEXT NOT NULL,
        actor TEXT NOT NULL,
        key_id TEXT,
        key_name TEXT,
        person TEXT,
        address TEXT,
        subject TEXT,
        subject_name TEXT,
        details TEXT NOT NULL,
        times {integer} NOT NULL,
        slot TEXT
    ){strict}
    """,
    "CREATE INDEX audit_at ON audit (at)",
    "CREATE INDEX audit_by_action ON audit (action, seq)",
    # Failed sign-ins that share a slot share a row.
    "CREATE UNIQUE INDEX audit_slot ON audit (slot) WHERE slot IS NOT NULL",
)
