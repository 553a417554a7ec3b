"""Asking every prompt of a file."""
