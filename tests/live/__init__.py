"""Tests of jobs as they are watched."""
