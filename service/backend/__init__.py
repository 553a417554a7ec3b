"""Everything that is said to an Ollama server, and what its answers mean."""
