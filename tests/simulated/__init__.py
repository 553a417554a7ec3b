"""Tests of the simulated Ollama."""
