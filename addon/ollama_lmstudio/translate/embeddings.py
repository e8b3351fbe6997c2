"""What /api/embed and /api/embeddings share: the call to LM Studio and the translation of its answer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from .. import tolerant_json
from ..lmstudio.errors import LMStudioError, LMStudioUnreachable, error_from_response, scrub
from ..ollama import chunks, errors
from ..ollama.requests import EmbeddingRequest, EmbedRequest
from ..outcomes import Call, Measured, Request, Response
from ..services import Services
from . import compact_json, first_words, loading
from .models import ResolvedModel
from .paths import EMBEDDINGS

# LM Studio counts no tokens of embeddings (its usage is 0), in all versions so far. A word or a mark is at least one
# token, so their number is a lower bound, and the same every time.
_WORDS = re.compile(r"\w+|[^\w\s]")

Vectors = list[list[float]]
BuildAnswer = Callable[[Vectors, int, int, int], dict[str, Any]]
"""How the client's object is made of the vectors, of the ns from the client's request to LM Studio's answer and to the
end of the load, and of the number of tokens. It may raise OllamaError.
"""


def count_tokens(texts: Sequence[str]) -> int:
    """Return a lower bound for the tokens of texts, at least 1 for each."""
    return sum(len(_WORDS.findall(text)) or 1 for text in texts)


def normalise(vector: Sequence[float], dimensions: int) -> list[float]:
    """Cut a vector to its first dimensions, if that is fewer, and scale it to length 1, as Ollama does."""
    if 0 < dimensions < len(vector):
        vector = vector[:dimensions]
    length = math.hypot(*vector)
    return [x / length for x in vector] if length else list(vector)


@dataclass(frozen=True, slots=True)
class Embedding:
    """A request for the embeddings of texts whose model has been found.

    `options` include an alias's parameters. `error_status` is the status of every error, None for LM Studio's.
    """

    request: Request
    body: EmbedRequest | EmbeddingRequest
    resolved: ResolvedModel
    texts: list[str]
    services: Services
    options: Mapping[str, Any]
    error_status: HTTPStatus | None = None

    async def prepare(self) -> None:
        """Load the model, where LM Studio would not load it on demand, or not in the way asked for."""
        await loading.prepare(self.resolved, self.options, self.services)


def embedding_call(embedding: Embedding, build: BuildAnswer) -> Call:
    """Return the call to `/v1/embeddings`, its model acquired."""
    request, resolved = embedding.body, embedding.resolved
    body = {"model": resolved.id, "input": embedding.texts, **loading.ttl(request.keep_alive)}
    translation = EmbedTranslation(embedding, build)
    words = first_words.of_texts(embedding.texts)
    call = Call(EMBEDDINGS, compact_json.dumps(body), translation, resolved.id, request.model, words=words)
    return loading.acquire(call, resolved, request.keep_alive, embedding.options, embedding.services)


class EmbedTranslation:
    """Translate the answer of `/v1/embeddings`."""

    def __init__(self, embedding: Embedding, build: BuildAnswer) -> None:
        self._embedding = embedding
        self._build = build
        self._secrets = embedding.services.secrets
        self._started_ns = embedding.request.started_ns
        self._load_duration = max(embedding.services.clock.monotonic() - self._started_ns, 1)
        self._duration = self._tokens = 0
        self._error = ""

    def paused(self, duration: int) -> None:
        """Leave `duration` ns, for which the user held the call, out of what is measured."""
        self._started_ns += duration

    def loading(self, until: int) -> None:
        """Count the time up to `until` as the load of the model: LM Studio was seen to load it then."""
        self._load_duration = max(until - self._started_ns, 1)

    def translate(self, status: int, content_type: str, body: bytes, at: int) -> Response:
        """Return the client's response: the vectors, in the order of the inputs."""
        self._duration = max(at - self._started_ns, 1)
        answer = tolerant_json.loads(body) if status == HTTPStatus.OK else None
        vectors = _read_vectors(answer, len(self._embedding.texts))
        if vectors is None:
            return self.fail(error_from_response(status, content_type, body, self._secrets))
        self._tokens = _read_tokens(answer) or count_tokens(self._embedding.texts)
        self._embedding.services.dimensions[self._embedding.resolved.model.key] = len(vectors[0])
        try:
            return Response.json(self._build(vectors, self._duration, self._load_duration, self._tokens))
        except ValueError:
            error = errors.embedding_not_finite()
        except errors.OllamaError as e:
            error = e
        self._error = error.message
        return Response.error(self._embedding.error_status or error.status, error.message)

    def fail(self, error: LMStudioError) -> Response:
        """Return the client's response for an error."""
        fixed = None if isinstance(error, LMStudioUnreachable) else self._embedding.error_status
        self._error = scrub(error.message, self._secrets)
        return Response.error(fixed or error.status, self._error)

    def measured(self) -> Measured:
        """Return what has been measured so far."""
        metrics = chunks.Metrics(self._duration, prompt_eval_count=self._tokens)
        return Measured(metrics, error=self._error)


def _read_tokens(answer: Any) -> int:
    """Return LM Studio's count of tokens; 0 if it has none."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    counts = [usage.get(name) for name in ("prompt_tokens", "total_tokens")] if isinstance(usage, dict) else []
    return next((count for count in counts if type(count) is int and count > 0), 0)


def _read_vectors(answer: Any, count: int) -> Vectors | None:
    """Return the vectors of an answer, in the order of their indexes; None if they are not all there."""
    try:
        rows = sorted(answer["data"], key=lambda row: row["index"])
        vectors = [[float(x) for x in row["embedding"]] for row in rows]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return vectors if len(vectors) == count else None
