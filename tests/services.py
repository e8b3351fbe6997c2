"""Services for tests of endpoints, with a model list that a test writes down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import pytest
from tests.strict.answers import ENDPOINTS
from tests.strict.reader import Asked, Lines, Marks, parse, read_object

from ollama_lmstudio import options
from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.catalog import Catalog, Instance, Model
from ollama_lmstudio.lmstudio.client import Client
from ollama_lmstudio.ollama import wire
from ollama_lmstudio.services import Clock, Services
from ollama_lmstudio.state.aliases import AliasStore
from ollama_lmstudio.translate.line_format import CHAT, LineFormat
from ollama_lmstudio.translate.metrics import Timings
from ollama_lmstudio.translate.names import Resolver
from ollama_lmstudio.translate.stream import ResponseOptions, Translator, TranslatorOptions

MakeServices = Callable[..., Services]


class StoppedClock(Clock):
    """A clock that stands still: at one second on the monotonic clock, on a day in 2023 on the wall."""

    def monotonic(self) -> int:
        return 1_000_000_000

    def wall(self) -> int:
        return 1_700_000_000_000_000_000


@dataclass
class LMStudio:
    """LM Studio's client, with a list of models; it records what it is asked to load, on demand or not."""

    listed: Catalog
    loads: list[str] = field(default_factory=list)
    uses: list[str] = field(default_factory=list)

    async def catalog(self, purpose: str = "") -> Catalog:
        return self.listed

    async def load(
        self, key: str, context_length: int | None, settings: Mapping[str, object], *, timeout: float
    ) -> dict[str, object]:
        self.loads.append(key)
        return {}

    async def use_once(self, key: str, ttl: Mapping[str, int], *, embeds: bool, timeout: float) -> None:
        self.uses.append(key)
        models = (
            replace(model, instances=(Instance(key),)) if model.key == key else model for model in self.listed.models
        )
        self.listed = replace(self.listed, models=tuple(models))


@pytest.fixture
def make_services(tmp_path: Path) -> MakeServices:
    """Return a function that makes services of models, and of options other than the defaults."""

    def make(*models: Model, **changed: Any) -> Services:
        defaults = {option.name: option.default for option in options.OPTIONS}
        lmstudio = cast(Client, LMStudio(Catalog(models)))
        settings = options.parse(defaults | {"state_dir": str(tmp_path)} | changed)
        aliases = AliasStore(settings.state_dir.data)
        return Services(settings, lmstudio, CatalogCache(lmstudio, 300, Resolver), aliases, StoppedClock())

    return make


@pytest.fixture(autouse=True, scope="module")
def strict_reader() -> Iterator[None]:
    """Read every object that an endpoint writes, and every line of a translator, with the strict reader."""
    reading: WeakKeyDictionary[Translator, Lines] = WeakKeyDictionary()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "dumps", _read_after(wire.dumps))
        patch.setattr(Translator, "__init__", _follow(Translator.__init__, reading))
        patch.setattr(Translator, "begin_again", _begin_again(Translator.begin_again, reading))
        for name in ("feed", "flush", "abort"):
            patch.setattr(Translator, name, _read_lines(getattr(Translator, name), reading))
        yield


def _read_after(dumps: Callable[[object], bytes]) -> Callable[[object], bytes]:
    def read(value: object) -> bytes:
        written = dumps(value)
        if isinstance(value, dict):
            read_object(written)
        return written

    return read


def _follow(init: Callable[..., None], reading: WeakKeyDictionary[Translator, Lines]) -> Callable[..., None]:
    def follow(
        self: Translator,
        line_format: LineFormat,
        model: str,
        response_options: ResponseOptions,
        timings: Timings,
        options: TranslatorOptions,
    ) -> None:
        init(self, line_format, model, response_options, timings, options)
        path = "/api/chat" if line_format is CHAT else "/api/generate"
        body = {"model": model, "logprobs": response_options.logprobs, "raw": options.context is None}
        reading[self] = Lines(Asked("POST", path, body, Marks(uncounted=None)), ENDPOINTS[path])

    return follow


def _begin_again(
    begin_again: Callable[[Translator], None], reading: WeakKeyDictionary[Translator, Lines]
) -> Callable[[Translator], None]:
    def begin(self: Translator) -> None:
        begin_again(self)
        reading[self] = reading[self].anew()

    return begin


def _read_lines(
    give: Callable[..., list[bytes]], reading: WeakKeyDictionary[Translator, Lines]
) -> Callable[..., list[bytes]]:
    def read(self: Translator, *given: Any) -> list[bytes]:
        lines = give(self, *given)
        for line in lines:
            assert line.endswith(b"\n")
            reading[self].take(parse(line[:-1]))
        return lines

    return read
