"""Calls of the drop-in dialects: read as Ollama reads them, queued, and answered with what Ollama says."""
