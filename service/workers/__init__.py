"""The consumers that run jobs on backends."""
