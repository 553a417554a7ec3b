"""Attacks by callers: each asserts in which order things happen and how much is held, read or sent."""
