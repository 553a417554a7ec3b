"""Calls of the drop-in dialects: read as Ollama reads, queued, and answered with what Ollama says."""
