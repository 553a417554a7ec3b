"""Tests of the client to a backend, its protocols and its breakers."""
