"""Tests with the client libraries that people use."""
