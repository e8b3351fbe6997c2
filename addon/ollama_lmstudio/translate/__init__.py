"""The translation: Ollama's requests into LM Studio's calls, LM Studio's answers into Ollama's."""
