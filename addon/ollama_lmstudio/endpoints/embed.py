"""`POST /api/embed` and the older `POST /api/embeddings` -> `/v1/embeddings`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..lmstudio import errors as lm_errors
from ..lmstudio.catalog import Resolution
from ..ollama import chunks, errors, names, wire
from ..ollama.options import check_options
from ..ollama.requests import EmbeddingRequest, EmbedRequest
from ..outcomes import Call, Measured, Request, Response
from ..services import Services
from ..translate import inference, loading, mapping
from ..translate.names import ollama_name

# LM Studio counts no tokens of embeddings. Words and marks are never more than tokens: a lower bound, the same every
# time.
_WORDS = re.compile(r"\w+|[^\w\s]")

Vectors = list[list[float]]


def count_tokens(texts: Sequence[str]) -> int:
    """Estimate the tokens of texts, from below; a model gets at least one even for nothing."""
    return sum(len(_WORDS.findall(text)) or 1 for text in texts)


def normalise(vector: Sequence[float], dimensions: int) -> list[float]:
    """Cut a vector to its first dimensions, if that is fewer, and scale it to length 1, as Ollama does."""
    if 0 < dimensions < len(vector):
        vector = vector[:dimensions]
    length = math.hypot(*vector)
    return [x / length for x in vector] if length else list(vector)


class EmbedTranslation:
    """Translate the answer of `/v1/embeddings`.

    `build` makes the client's object of the vectors and of how long it took to have them, in ns.
    """

    def __init__(
        self,
        count: int,
        build: Callable[[Vectors, int], dict[str, Any]],
        services: Services,
        status: int | None,
        key: str,
        *,
        arrived: int,
        tokens: int,
    ) -> None:
        self._count = count
        self._key = key
        self._dimensions = services.dimensions
        self._build = build
        self._secrets = services.secrets
        self._status = status
        self._arrived, self._tokens = arrived, tokens
        self._took = 0
        self._error = ""

    def paused(self, duration: int) -> None:
        """Leave `duration` ns, for which the user held the call, out of what is measured."""
        self._arrived += duration

    def translate(self, status: int, content_type: str, body: bytes, at: int) -> Response:
        """Return the client's response: the vectors, in the order of the inputs."""
        self._took = max(at - self._arrived, 1)
        vectors = _vectors(body, self._count) if status == 200 else None
        if vectors is None:
            return self.fail(lm_errors.error_from_response(status, content_type, body, self._secrets))
        self._dimensions[self._key] = len(vectors[0])
        try:
            return Response.json(self._build(vectors, self._took))
        except ValueError:
            return Response.error(self._status or 400, errors.embedding_not_finite().message)

    def fail(self, error: lm_errors.LMStudioError) -> Response:
        """Return the error; Ollama gives all of its runner's the same status here, but for the older endpoint."""
        status = self._status if self._status and not isinstance(error, lm_errors.LMStudioUnreachable) else error.status
        self._error = lm_errors.scrub(error.message, self._secrets)
        return Response.error(status, self._error)

    def measured(self) -> Measured:
        """Give what was measured so far."""
        return Measured(chunks.Metrics(self._took, prompt_eval_count=self._tokens), error=self._error)


def _vectors(body: bytes, count: int) -> Vectors | None:
    """Read the vectors of an answer, in the order of their indexes; None if they are not all there."""
    try:
        data = json.loads(body)["data"]
        rows = sorted(data, key=lambda row: row["index"])
        vectors = [[float(x) for x in row["embedding"]] for row in rows]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return vectors if len(vectors) == count else None


async def embed(incoming: Request, services: Services) -> Response | Call:
    """Embed one text or several; none loads the model."""
    request = await EmbedRequest.read(incoming.body)
    texts = request.inputs()
    if not request.model:
        raise errors.model_not_found(request.model)
    found = await inference.find_model(request.model, services, errors.embedding_model_not_found)
    if not texts:
        await loading.ensure_loaded(found, services)
        return Response.json({"model": request.model, "embeddings": []})
    limit = _context_length(found)
    count = count_tokens(texts)
    if request.truncate is False and limit and any(count_tokens([text]) > limit for text in texts):
        raise errors.input_too_long()

    await loading.prepare(found, request.keep_alive, request.options or {}, services)
    loaded = services.clock.monotonic() - incoming.arrived

    def build(vectors: Vectors, took: int) -> dict[str, Any]:
        normalised = [wire.Vector(normalise(vector, request.dimensions)) for vector in vectors]
        return chunks.embed_answer(request.model, normalised, took, max(loaded, 1), count)

    return _call(request, texts, count, build, found, incoming, services, None)


async def embeddings(incoming: Request, services: Services) -> Response | Call:
    """Embed one text, the way Ollama did at first: the vector as the model gives it."""
    request = await EmbeddingRequest.read(incoming.body)
    if not request.model:
        raise errors.model_required()
    found = await inference.find_model(request.model, services, errors.embedding_model_not_found)
    if _differs_in_case(request.model, found):
        raise errors.embedding_model_not_found(request.model)
    if not request.prompt:
        await loading.ensure_loaded(found, services)
        return Response.json({"embedding": []})

    await loading.prepare(found, request.keep_alive, request.options or {}, services)

    def build(vectors: Vectors, took: int) -> dict[str, Any]:
        return chunks.embeddings_answer(vectors[0])

    texts = [request.prompt]
    return _call(request, texts, count_tokens(texts), build, found, incoming, services, 500)


def _differs_in_case(name: str, found: inference.ResolvedModel) -> bool:
    """Whether a name is the model's but for the case of its letters, which Ollama does not forgive here alone."""
    if "@" in name:
        return False
    asked, own = names.parse_name(name), names.parse_name(found.alias.name if found.alias else ollama_name(found.id))
    return asked.key == own.key and asked.canonical != own.canonical


def _context_length(found: Resolution) -> int | None:
    loaded = next((i.context_length for i in found.model.instances if i.context_length), None)
    return loaded or found.model.max_context_length


def _call(
    request: EmbedRequest | EmbeddingRequest,
    texts: list[str],
    tokens: int,
    build: Callable[[Vectors, int], dict[str, Any]],
    found: Resolution,
    incoming: Request,
    services: Services,
    status: int | None,
) -> Call:
    check_options(request.options)
    body: dict[str, Any] = {"model": found.id, "input": texts, **inference.ttl(request.keep_alive)}
    translation = EmbedTranslation(
        len(texts),
        build,
        services,
        status,
        found.model.key,
        arrived=incoming.arrived,
        tokens=tokens,
    )
    call = Call(mapping.EMBEDDINGS, mapping.dumps(body), translation, model=found.id, asked=request.model)
    return inference.use(call, found, request.keep_alive, services)
