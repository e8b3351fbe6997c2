"""What is kept on disk. Nothing here knows Ollama, LM Studio or mitmproxy."""
