"""Tests of the service as a process: start, stop, reload, what is deployed."""
