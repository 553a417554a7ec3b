"""What the service counts of itself."""
