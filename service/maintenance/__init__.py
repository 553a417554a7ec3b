"""What must be done now and then, beside the jobs."""
