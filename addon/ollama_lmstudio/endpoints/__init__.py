"""The endpoints: one module each, between Ollama's wire and LM Studio's."""
