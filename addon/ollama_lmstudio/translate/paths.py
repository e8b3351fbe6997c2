"""The paths of LM Studio's APIs that requests are sent to, or that are told apart."""

from __future__ import annotations

CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
MESSAGES = "/v1/messages"
MODELS = "/v1/models"
RESPONSES = "/v1/responses"
SYSTEMONE = "/v1/systemone"

LMSTUDIOS_OWN = ("/api/v0/", "/api/v1/")
"""How the paths of LM Studio's own API begin."""
MAYBE_MISSING = (
    *(CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS, MODELS, RESPONSES, SYSTEMONE),
    *("/v1/decisions", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations"),
)
"""Paths of `/v1` that some Ollama has or some LM Studio, so that clients ask for them: `/v1/messages` too."""
