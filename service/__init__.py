"""Corral: a durable queue and gateway in front of Ollama."""
