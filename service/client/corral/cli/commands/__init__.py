"""The commands, each found by its name when it is asked for."""
