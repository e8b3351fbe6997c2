"""Ollama's wire: what its clients send and what they must get, in its own words."""
