"""Tests of which job goes to which backend."""
