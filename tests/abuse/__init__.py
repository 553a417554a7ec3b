"""Tests of the routes that stand in for Ollama's own."""
