"""The output of jobs while it is written, and those who follow it."""
