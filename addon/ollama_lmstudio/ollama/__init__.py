"""Ollama's wire: request bodies, response bodies, error texts, names and durations. Nothing here knows LM Studio."""
