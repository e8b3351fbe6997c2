"""The answers of decision models: `/v1/systemone`, of which LM Studio documents no more than that it has it.

It needs a model that is loaded, and takes images as data URLs.
"""

from __future__ import annotations

from typing import Any

from .backend import Backend
from .connection import SimExchange
from .state import Instance
from .validate import read_body
from .wire import JsonObject, openai_error

DATA_URLS = ("data:image/png;base64,", "data:image/jpeg;base64,")


async def decide(backend: Backend, exchange: SimExchange) -> None:
    """Answer each question with the first of its choices."""
    body = read_body(exchange.record.body)
    instance = _instance(backend, body.get("model"))
    for image in body.get("images", ()):
        if not isinstance(image, str) or not image.startswith(DATA_URLS):
            raise openai_error("Each image must be a base64 data URL.")
    questions = body.get("questions")
    if not isinstance(questions, dict) or not questions:
        raise openai_error("'questions' must be an object with at least one question.")
    answers = {name: _answer(question) for name, question in questions.items()}
    usage = {"input_tokens": len(str(body.get("state", "")).split()), "output_tokens": len(answers)}
    await backend.send(exchange, {"model": instance.id, "answers": answers, "usage": usage})


def _instance(backend: Backend, name: object) -> Instance:
    loaded = backend.state.loaded("decision")
    model = backend.state.find(name) if isinstance(name, str) else None
    found = next((instance for instance in loaded if name == instance.id or instance.model is model), None)
    if found is None:
        raise backend.state.no_models() if not loaded else backend.state.unknown(str(name))
    return found


def _answer(question: Any) -> JsonObject:
    kind, criteria = question.get("type"), question.get("criteria")
    if kind == "noul":
        return {"type": "noul", "noul": 0.25}
    if kind == "score":
        shares = {str(at): 1.0 if at == 0 else 0.0 for at in range(len(criteria))}
        legend = dict(zip(shares, criteria, strict=True))
        return {"type": "score", "score": 0.0, "legend": legend, "probabilities": shares, "confidence": 1.0}
    if kind != "choice":
        raise openai_error("The type of a question is one of choice, noul and score.")
    shares = {name: 1.0 if at == 0 else 0.0 for at, name in enumerate(criteria)}
    return {"type": "choice", "choice": next(iter(shares)), "probabilities": shares, "confidence": 1.0}
