"""The paths of LM Studio's OpenAI-compatible API that requests are sent to or repaired on."""

from __future__ import annotations

CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
MESSAGES = "/v1/messages"
MODELS = "/v1/models"
RESPONSES = "/v1/responses"
SYSTEMONE = "/v1/systemone"
