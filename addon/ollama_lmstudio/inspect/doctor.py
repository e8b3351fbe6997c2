"""Look at everything that has to be right for the bridge to work, and say what is not and what to do."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from .. import __version__
from ..endpoints.base import Services
from ..lmstudio.catalog import Catalog
from ..lmstudio.errors import LMStudioError, scrub
from ..options import DEFAULT_LISTEN_PORT

Verdict = Literal["ok", "note", "problem"]

HTTP_SECONDS = 1.0

# What a server on a port may be.
FREE = "free"
THIS = "this bridge's already"
OLLAMA = "taken by an Ollama server: stop it, or choose another with listen"
OTHER = "taken by another program: choose another with listen"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    verdict: Verdict
    text: str

    def __str__(self) -> str:
        return f"{self.verdict:>7}: {self.text}"


async def examine(services: Services, *, serving: bool) -> list[Finding]:
    """Look at LM Studio, its models and token, the port, who may come in, and the state directory.

    `serving` is whether this process serves on the port of the settings. Never raises.
    """
    found = [Finding("note", f"ollama-lmstudio-proxy {__version__}")]
    try:
        catalog = await services.catalog.refresh()
    except LMStudioError as e:
        found.append(Finding("problem", scrub(e.message, services.secrets)))
    else:
        found += _lmstudio(catalog, services)
    found += await _port(services, serving=serving)
    found += _access(services)
    found.append(await asyncio.to_thread(_state, services.settings.state_dir))
    return found


def _lmstudio(catalog: Catalog, services: Services) -> Iterator[Finding]:
    url, models = services.settings.lmstudio_url, catalog.models
    yield Finding("ok", f"LM Studio {version(catalog)} answers at {services.client.url or url}")
    yield Finding("ok" if models else "problem", f"it lists {len(models)} models" if models else "it has no models yet")
    loaded = [instance.id for model in models for instance in model.instances]
    yield Finding(
        "note", f"loaded: {', '.join(loaded)}" if loaded else "no model is loaded: the first request will wait"
    )
    for skipped in catalog.skipped:
        yield Finding("problem", f"a model in its list cannot be used: {skipped}")
    if services.settings.lmstudio_token:
        yield Finding("ok", "the token lmstudio_token was not refused")


def version(catalog: Catalog) -> str:
    """Tell what version of LM Studio a model list gives away: it has no endpoint that says so."""
    if catalog.source != "v1":
        return "0.3.6 or newer" if catalog.source == "v0" else "before 0.3.6, or another server of OpenAI's API,"
    instances = [instance for model in catalog.models for instance in model.instances]
    if any(instance.remaining_ttl_seconds is not None for instance in instances):
        return "0.4.22 or newer"
    return "0.4.8 or newer" if any(model.reasoning for model in catalog.models) else "0.4.0 or newer"


async def _port(services: Services, *, serving: bool) -> list[Finding]:
    listen = services.settings.listen
    found = []
    if not serving:
        holder = await who_serves(listen.port)
        verdict: Verdict = "problem" if holder in (OLLAMA, OTHER) else "ok"
        found.append(Finding(verdict, f"port {listen.port} is {holder}"))
    if serving and listen.port != DEFAULT_LISTEN_PORT:
        holder = await who_serves(DEFAULT_LISTEN_PORT)
        if holder == OLLAMA:
            told = f"clients that are not told port {listen.port} find an Ollama server on {DEFAULT_LISTEN_PORT}"
            found.append(Finding("note", told))
    return found


async def who_serves(port: int) -> str:
    """Tell what answers on a port of this machine."""
    async with httpx.AsyncClient(timeout=HTTP_SECONDS, trust_env=False) as client:
        try:
            root = await client.get(f"http://127.0.0.1:{port}/")
            health = await client.get(f"http://127.0.0.1:{port}/health")
        except httpx.ConnectError:
            return FREE
        except httpx.HTTPError:
            return OTHER
    if b'"proxy_version"' in health.content:
        return THIS
    return OLLAMA if root.text == "Ollama is running" else OTHER


def _access(services: Services) -> Iterator[Finding]:
    settings = services.settings
    if settings.api_key:
        yield Finding("ok", f"{settings.listen} asks for the key api_key")
    elif settings.listen.is_loopback:
        yield Finding("ok", f"{settings.listen} is reached from this machine only")
    else:
        yield Finding("note", f"everybody on this network can use {settings.listen}: to ask for a key, set api_key")


def _state(directory: Path) -> Finding:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"test")
    except OSError as e:
        return Finding("problem", f"the state directory {directory} cannot be written: {e.strerror or e}")
    return Finding("ok", f"the state directory {directory} can be written")
