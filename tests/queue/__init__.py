"""Tests of the order among waiting jobs, and of the room for them."""
