"""Aliases and blobs on disk. Nothing here knows Ollama, LM Studio or mitmproxy."""
