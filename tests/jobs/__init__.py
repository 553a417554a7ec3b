"""Tests of what becomes of jobs."""
