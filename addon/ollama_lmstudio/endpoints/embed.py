"""`POST /api/embed` -> `/v1/embeddings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ollama import chunks, errors, wire
from ..ollama.requests import EmbedRequest
from ..outcomes import Call, Request, Response
from ..services import Services
from ..translate import loading
from ..translate.embeddings import Embedding, Vectors, count_tokens, embedding_call, normalise
from ..translate.listing import context_length
from ..translate.models import ResolvedModel, find_model
from ..translate.options import merge_options


async def embed(request: Request, services: Services) -> Response | Call:
    """Embed one text or several; without any, load the model."""
    body = await EmbedRequest.read(request.body)
    texts = body.inputs()
    if not body.model:
        raise errors.model_not_found(body.model)
    resolved = await find_model(body.model, services, errors.embedding_model_not_found)
    options = merge_options(resolved.alias, body.options, {})
    if not texts:
        await loading.load(resolved, body.keep_alive, options, services)
        return Response.json({"model": body.model, "embeddings": []})
    limit = _limit(resolved, options) if body.truncate is False else None
    if limit and any(count_tokens([text]) > limit for text in texts):
        raise errors.input_too_long()
    embedding = Embedding(request, body, resolved, texts, services, options)
    await embedding.prepare()

    def build(vectors: Vectors, duration: int, load_duration: int, tokens: int) -> dict[str, Any]:
        # What LM Studio has counted is of all texts together.
        if limit and len(texts) == 1 and tokens > limit:
            raise errors.input_too_long()
        normalised = [wire.Vector(normalise(vector, body.dimensions)) for vector in vectors]
        return chunks.embed_answer(body.model, normalised, duration, load_duration, tokens)

    return embedding_call(embedding, build)


def _limit(resolved: ResolvedModel, options: Mapping[str, Any]) -> int | None:
    """Return how many tokens a text may have: `num_ctx`, or the model's context if that is shorter; None if unknown."""
    lengths = (options.get("num_ctx"), context_length(resolved.model))
    return min((length for length in lengths if isinstance(length, int) and length > 0), default=None)
