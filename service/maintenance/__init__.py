"""What is done now and then, beside the jobs."""
