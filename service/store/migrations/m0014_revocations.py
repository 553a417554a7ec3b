"""Whether what a revoked key had asked for goes on."""

STATEMENTS = ("ALTER TABLE keys ADD COLUMN keeps_jobs {integer} NOT NULL DEFAULT 1",)
"""Keys that were revoked before it kept their jobs."""
