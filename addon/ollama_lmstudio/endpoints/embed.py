"""`POST /api/embed` -> `/v1/embeddings`."""

from __future__ import annotations

from typing import Any

from ..ollama import chunks, errors, wire
from ..ollama.requests import EmbedRequest
from ..outcomes import Call, Request, Response
from ..services import Services
from ..translate import loading
from ..translate.embeddings import Embedding, Vectors, count_tokens, embedding_call, normalise
from ..translate.listing import context_length
from ..translate.models import find_model


async def embed(request: Request, services: Services) -> Response | Call:
    """Embed one text or several; without any, load the model."""
    body = await EmbedRequest.read(request.body)
    texts = body.inputs()
    if not body.model:
        raise errors.model_not_found(body.model)
    resolved = await find_model(body.model, services, errors.embedding_model_not_found)
    if not texts:
        await loading.load(resolved, body.keep_alive, body.options or {}, services)
        return Response.json({"model": body.model, "embeddings": []})
    limit = context_length(resolved.model)
    if body.truncate is False and limit and any(count_tokens([text]) > limit for text in texts):
        raise errors.input_too_long()
    embedding = Embedding(request, body, resolved, texts, count_tokens(texts), services)
    await embedding.prepare()

    def build(vectors: Vectors, duration: int, load_duration: int) -> dict[str, Any]:
        normalised = [wire.Vector(normalise(vector, body.dimensions)) for vector in vectors]
        return chunks.embed_answer(body.model, normalised, duration, load_duration, embedding.tokens)

    return embedding_call(embedding, build)
