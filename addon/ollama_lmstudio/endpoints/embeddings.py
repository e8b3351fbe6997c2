"""`POST /api/embeddings`, which Ollama had before `/api/embed` -> `/v1/embeddings`."""

from __future__ import annotations

from http import HTTPStatus

from ..ollama import chunks, errors, names
from ..ollama.errors import OllamaError
from ..ollama.requests import EmbeddingRequest
from ..outcomes import Call, Request, Response
from ..services import Services
from ..translate import loading
from ..translate.embeddings import Embedding, embedding_call
from ..translate.models import ResolvedModel, find_model
from ..translate.names import ollama_name
from ..translate.options import merge_options


async def embeddings(request: Request, services: Services) -> Response | Call:
    """Embed one text; the vector is returned as the model gives it, not normalised."""
    body = await EmbeddingRequest.read(request.body)
    if not body.model:
        raise errors.model_required()
    resolved = await find_model(body.model, services, errors.embedding_model_not_found)
    if _differs_in_case(body.model, resolved):
        raise errors.embedding_model_not_found(body.model)
    options = merge_options(resolved.alias, body.options, {})
    if not body.prompt:
        await loading.load(resolved, body.keep_alive, options, services)
        return Response.json({"embedding": []})
    # Ollama returns a 500 for every error of its runner here.
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    embedding = Embedding(request, body, resolved, [body.prompt], services, options, status)
    await embedding.prepare()
    return embedding_call(embedding, lambda vectors, *numbers: chunks.embeddings_answer(vectors[0]))


def _differs_in_case(name: str, resolved: ResolvedModel) -> bool:
    """Return whether a name is the model's but for its case, which Ollama tells apart on this endpoint alone."""
    own_name = resolved.alias.name if resolved.alias else ollama_name(resolved.id)
    try:
        asked, own = names.parse_name(name), names.parse_name(own_name)
    except OllamaError:
        # A name of LM Studio's that is none in Ollama's grammar.
        return False
    return asked.key == own.key and asked.canonical != own.canonical
