"""`/v1/systemone`: what a decision model is asked, and what it answers. LM Studio has the same protocol as Ollama."""

from __future__ import annotations

from http import HTTPStatus

from .. import tolerant_json
from ..lmstudio.errors import LMStudioError, error_from_response, is_unknown_route, scrub
from ..ollama import chunks
from ..ollama.requests import SystemOneRequest
from ..outcomes import Measured, Response
from ..services import Services
from . import compact_json
from .images import image_to_lmstudio
from .models import ResolvedModel


def decision_body(body: SystemOneRequest, resolved: ResolvedModel) -> bytes:
    """Return LM Studio's request: its name for the model, and images as data URLs.

    Raises OllamaError (400) for an image that LM Studio does not take.
    """
    images = [image_to_lmstudio(image)["image_url"]["url"] for image in body.images]
    given = {"state": body.state, "questions": body.questions, "images": images}
    present = {key: value for key, value in given.items() if value not in (None, [])}
    return compact_json.dumps({"model": resolved.id, **present, **body.extras})


class DecisionTranslation:
    """Translate the answer of `/v1/systemone`: the model has the client's name for it, and errors are Ollama's."""

    def __init__(self, asked: str, started_ns: int, services: Services) -> None:
        self._asked = asked
        self._started_ns = started_ns
        self._secrets = services.secrets
        self._metrics = chunks.Metrics()
        self._error = ""

    def paused(self, duration: int) -> None:
        """Leave `duration` ns, for which the user held the call, out of what is measured."""
        self._started_ns += duration

    def loading(self, until: int) -> None:
        """Count nothing: a decision model is loaded before it is called."""

    def translate(self, status: int, content_type: str, body: bytes, at: int) -> Response:
        """Return the client's response."""
        answer = tolerant_json.loads(body) if status == HTTPStatus.OK else None
        if not isinstance(answer, dict) or "answers" not in answer:
            error = error_from_response(status, content_type, body, self._secrets)
            # By a 404 clients tell a server without this path, as those of Ollama's before 0.35 are.
            return self.fail(LMStudioError(HTTPStatus.NOT_FOUND, error.message) if is_unknown_route(body) else error)
        usage = answer.get("usage")
        counts = usage if isinstance(usage, dict) else {}
        self._metrics = chunks.Metrics(
            total_duration=max(at - self._started_ns, 1),
            prompt_eval_count=_count(counts.get("input_tokens")),
            eval_count=_count(counts.get("output_tokens")),
        )
        return Response.json({**answer, "model": self._asked})

    def fail(self, error: LMStudioError) -> Response:
        """Return the client's response for an error."""
        self._error = scrub(error.message, self._secrets)
        return Response.error(error.status, self._error)

    def measured(self) -> Measured:
        """Return what has been measured so far."""
        return Measured(self._metrics, error=self._error)


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
