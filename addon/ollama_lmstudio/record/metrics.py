"""Numbers for Prometheus, made of the records of exchanges that have ended, and of the bridge's own calls.

Names and units: https://prometheus.io/docs/practices/naming. Labels have few values: an endpoint is a route of the
table, a model one that LM Studio has, a key one that the user has named. What is not known has an empty label, which to
Prometheus is none.

This module is loaded only where the option `metrics` is on: it needs the library of the extra `metrics`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

from ..lmstudio.client import CANCELLED, ClientCall
from .record import LEFT, Record

NAMESPACE = "ollama_lmstudio"
NO_RESPONSE = "none"
"""The status of an exchange whose client left before it had a response."""
# Over this number, models and keys are counted together: of each there are some dozens of time series.
MAX_VALUES = 200
OTHERS = "(others)"

FIRST_TOKEN_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
LOAD_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 45, 60, 120, 300, 600)
TOKENS_PER_SECOND = (1, 2, 5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500)

# Why something did not come from LM Studio as it should.
NO_ANSWER, BROKEN_OFF = "no_answer", "broken_off"
REFUSED, FAILED = "http_4xx", "http_5xx"
REASONS = (NO_ANSWER, BROKEN_OFF, REFUSED, FAILED)
# Who had asked.
SOURCES = (CLIENT, BRIDGE) = ("client", "bridge")

_NS_PER_SECOND = 1e9


@dataclass(slots=True)
class _Few:
    """The values that a label may have: the first ones that come, up to a limit."""

    known: set[str] = field(default_factory=set)

    def of(self, value: str) -> str:
        if value and value not in self.known:
            if len(self.known) >= MAX_VALUES:
                return OTHERS
            self.known.add(value)
        return value


class Metrics:
    """Count, in a registry of its own: what is loaded anew begins at 0, as Prometheus expects of a restart."""

    def __init__(
        self, version: str, known_model: Callable[[str], str], under_way: Callable[[], tuple[int, int]]
    ) -> None:
        """`known_model` returns LM Studio's name of a model, empty for one that it does not have.

        `under_way` returns how many exchanges wait for LM Studio, and how many of them stream already.
        """
        self._known_model = known_model
        self._under_way = under_way
        self._model_of: dict[str, str] = {}
        self._models, self._keys = _Few(), _Few()
        # When a counter began would be a time series more for each; without OpenMetrics nothing reads it.
        prometheus_client.disable_created_metrics()
        registry = self._registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace=NAMESPACE, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, namespace=NAMESPACE, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, ("model",), namespace=NAMESPACE, buckets=buckets, registry=registry)

        self._requests = counter("requests", "Requests that have ended.", "endpoint", "model", "status", "key")
        self._prompt_tokens = counter("prompt_tokens", "Tokens of prompts.", "model", "key")
        self._answer_tokens = counter("answer_tokens", "Tokens of answers.", "model", "key")
        self._errors = counter("upstream_errors", "What LM Studio did not answer as it should.", "source", "reason")
        self._first_token = histogram(
            "first_token_seconds", "From the request to the first token of its answer.", FIRST_TOKEN_SECONDS
        )
        self._load = histogram("load_seconds", "Finding the model, and loading it if that was needed.", LOAD_SECONDS)
        self._speed = histogram(
            "answer_tokens_per_second",
            "Tokens of an answer by the time from the first one to its end.",
            TOKENS_PER_SECOND,
        )
        self._waiting = gauge("upstream_requests_in_progress", "Requests that LM Studio answers or is to answer.")
        self._streams = gauge("streams_in_progress", "Those of them whose answers are being passed on.")
        Info("build", "The version of the bridge.", namespace=NAMESPACE, registry=registry).info({"version": version})
        ProcessCollector(registry=registry)
        # A counter that is there from the beginning on shows its first step, too.
        for source in SOURCES:
            for reason in REASONS:
                self._errors.labels(source, reason)

    def add(self, record: Record, status: int, endpoint: str, *, is_recorded: bool = False) -> None:
        """Count an exchange that has ended; `status` is what the client got, 0 for nothing.

        The numbers of an answer that is a recorded one are those of another time.
        """
        if record.kind == "own":
            return
        model, key = self._model(record.upstream_model), self._keys.of(record.key)
        self._requests.labels(endpoint, model, str(status or NO_RESPONSE), key).inc()
        if is_recorded:
            return
        if record.kind in ("call", "relay"):
            self._count_error(CLIENT, record.status, record.error)
        numbers = record.numbers
        if numbers is None:
            return
        if numbers.prompt_tokens:
            self._prompt_tokens.labels(model, key).inc(numbers.prompt_tokens)
        if numbers.answer_tokens:
            self._answer_tokens.labels(model, key).inc(numbers.answer_tokens)
        if numbers.first_token > 0:
            self._first_token.labels(model).observe(numbers.first_token / _NS_PER_SECOND)
        if numbers.load > 0:
            self._load.labels(model).observe(numbers.load / _NS_PER_SECOND)
        if speed := numbers.tokens_per_second:
            self._speed.labels(model).observe(speed)

    def add_call(self, call: ClientCall) -> None:
        """Count a call of the bridge's own that has ended, if it failed."""
        if call.error != CANCELLED:
            self._count_error(BRIDGE, call.status or 0, call.error or "")

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return everything in the text format that a client accepts, and its content type."""
        waiting, streams = self._under_way()
        self._waiting.set(waiting)
        self._streams.set(streams)
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):
            # The library takes a client's version of the format for numbers.
            encode, content_type = choose_encoder("")
        # Of many models it takes tens of milliseconds, and the process is looked up in files.
        return await asyncio.to_thread(encode, self._registry), content_type

    def _count_error(self, source: str, status: int, error: str) -> None:
        if not error.startswith(LEFT) and (reason := _reason(status, error)):
            self._errors.labels(source, reason).inc()

    def _model(self, name: str) -> str:
        """Return the label of a model; empty for one that LM Studio does not have: clients may make up any name."""
        if not name:
            return ""
        found = self._model_of.get(name)
        if found is None:
            found = self._models.of(self._known_model(name))
            if found and len(self._model_of) < MAX_VALUES:
                self._model_of[name] = found
        return found


def _reason(status: int, error: str) -> str:
    """Return what was wrong with LM Studio's response, whose status is 0 if there was none; empty for nothing."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return FAILED
    if status >= HTTPStatus.BAD_REQUEST:
        return REFUSED
    if not status:
        return NO_ANSWER
    return BROKEN_OFF if error else ""
