"""What keeps the bridge from working, or could surprise: found by looking at everything around it once."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from ..endpoints.base import Services
from ..endpoints.inference import find_aliases
from ..lmstudio.cache import CatalogCache
from ..lmstudio.catalog import Catalog, Instance
from ..lmstudio.client import Client
from ..lmstudio.errors import LMStudioError, is_token_refused
from ..options import DEFAULT_LISTEN_PORT, Settings
from ..state.aliases import AliasStore

Level = Literal["ok", "note", "problem"]

PORT_SECONDS = 2.0
UNAUTHORIZED = {"error": "unauthorized"}
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    text: str

    def __str__(self) -> str:
        return f"{self.level:<8} {self.text}"


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether nothing keeps the bridge from working."""
    return all(finding.level != "problem" for finding in findings)


async def examine(services: Services, *, serving: bool | None) -> list[Finding]:
    """Look at LM Studio, the ports and this machine; nothing is changed.

    `serving` is whether this process serves; None where another one may, which is then asked.
    """
    findings = [finding async for finding in _lmstudio(services)]
    findings += [finding async for finding in _ports(services.settings, serving)]
    return findings + here(services)


def here(services: Services) -> list[Finding]:
    """Look only at what needs no answer from anybody."""
    return [*_loop(services.settings), *_state(services), *_exposure(services.settings)]


def main(settings: Settings) -> int:
    """Print the report of a bridge with these settings, which need not run; give the exit status."""
    findings = asyncio.run(_examine_alone(settings))
    print(*findings, sep="\n")
    return 0 if is_well(findings) else 1


async def _examine_alone(settings: Settings) -> list[Finding]:
    client = Client(str(settings.lmstudio_url), settings.lmstudio_token or None)
    catalog = CatalogCache(client, settings.model_resolution_cache_ttl_seconds)
    services = Services(settings, client, catalog, AliasStore(settings.state_dir))
    try:
        return await examine(services, serving=None)
    finally:
        services.life.stop()
        await client.aclose()


# LM Studio


async def _lmstudio(services: Services) -> AsyncIterator[Finding]:
    client = services.client
    try:
        catalog = await services.catalog.refresh()
    except LMStudioError as e:
        wanted = is_token_refused(e) and not services.settings.lmstudio_token
        yield Finding("problem", "LM Studio asks for a token: set the option lmstudio_token." if wanted else e.message)
        return
    yield Finding("ok", f"LM Studio answers at {client.url}: {version(catalog)}.")
    yield await _token(services)
    count = len(catalog.models)
    if count:
        yield Finding("ok", f"{count} model{'' if count == 1 else 's'}, {_loaded(catalog)}.")
    else:
        yield Finding("problem", "LM Studio has no models, or shows none: download one, or switch on its JIT loading.")
    for skipped in catalog.skipped:
        yield Finding("note", f"LM Studio lists a model that cannot be used: {skipped}.")
    found = {found.alias.name for found in find_aliases(catalog, services) if found.alias}
    for alias in services.aliases.all().values():
        if alias.name not in found:
            yield Finding("note", f"LM Studio does not have {alias.target}, which the alias {alias.name} stands for.")
    if not services.life.on_demand:
        yield Finding("note", "LM Studio does not load on demand: models are loaded from here.")


# What only newer versions tell in their list, the newest first.
_SIGNS: Sequence[tuple[str, Callable[[Catalog], bool]]] = (
    ("0.4.22", lambda catalog: any(i.remaining_ttl_seconds is not None for m in catalog.models for i in m.instances)),
    ("0.4.8", lambda catalog: any(model.reasoning for model in catalog.models)),
    ("0.4.0", lambda catalog: catalog.source == "v1"),
    ("0.3.16", lambda catalog: any(model.capabilities_known for model in catalog.models)),
    ("0.3.6", lambda catalog: catalog.source == "v0"),
)


def version(catalog: Catalog) -> str:
    """Tell how new LM Studio is at least; it does not say itself."""
    found = next((number for number, shows in _SIGNS if shows(catalog)), None)
    return f"version {found} or newer" if found else "older than version 0.3.6, or no LM Studio"


async def _token(services: Services) -> Finding:
    """Tell whether a token is asked for, once a call has been answered."""
    if not services.settings.lmstudio_token:
        return Finding("ok", "LM Studio asks for no token.")
    anonymous = services.client.without_token()
    try:
        await anonymous.catalog()
    except LMStudioError as e:
        if is_token_refused(e):
            return Finding("ok", "LM Studio asks for a token, and accepts the one in lmstudio_token.")
        return Finding("note", f"whether LM Studio asks for a token cannot be told: {e.message}")
    finally:
        await anonymous.aclose()
    return Finding("note", "LM Studio asks for no token: the one in lmstudio_token is not needed.")


def _loaded(catalog: Catalog) -> str:
    instances = [describe(instance) for model in catalog.models for instance in model.instances]
    return f"loaded: {', '.join(instances)}" if instances else "none loaded"


def describe(instance: Instance) -> str:
    """Tell of a model in memory how long its context is, and how long it stays."""
    length = f"{instance.context_length} tokens" if instance.context_length else ""
    seconds = instance.remaining_ttl_seconds
    rest = f"{round(seconds / 60)} min left" if seconds is not None else ""
    details = ", ".join(part for part in (length, rest) if part)
    return f"{instance.id} ({details})" if details else instance.id


# Ports


async def _ports(settings: Settings, serving: bool | None) -> AsyncIterator[Finding]:
    port = settings.listen.port
    if serving is None:
        yield _OF_PORT[await who_answers(port)](port)
    elif serving:
        yield Finding("ok", "The bridge serves.")
    else:
        yield Finding("problem", f"The bridge does not serve: port {port} may be taken, see the log.")
    if port != DEFAULT_LISTEN_PORT and await who_answers(DEFAULT_LISTEN_PORT) == "ollama":
        yield Finding(
            "note",
            f"An Ollama server answers on port {DEFAULT_LISTEN_PORT}: clients that know no other address ask that one.",
        )


Answerer = Literal["nobody", "bridge", "ollama", "other"]

_OF_PORT: Mapping[Answerer, Callable[[int], Finding]] = {
    "nobody": lambda port: Finding("ok", f"Port {port} is free."),
    "bridge": lambda port: Finding("ok", f"The bridge answers on port {port}."),
    "ollama": lambda port: Finding(
        "problem", f"An Ollama server answers on port {port}: stop it, or serve elsewhere with the option listen."
    ),
    "other": lambda port: Finding(
        "problem", f"Another program answers on port {port}: serve elsewhere with the option listen."
    ),
}


async def who_answers(port: int) -> Answerer:
    """Tell who answers on a port of this machine."""
    try:
        async with (
            asyncio.timeout(PORT_SECONDS),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
        ):
            health = await client.get("/health")
            if _is_bridge(health):
                return "bridge"
            return "ollama" if "Ollama is running" in (await client.get("/")).text else "other"
    except httpx.ConnectError:
        return "nobody"
    except (httpx.HTTPError, TimeoutError):
        return "other"


def _is_bridge(health: httpx.Response) -> bool:
    """Whether this is the bridge's answer, also where it wants a key."""
    try:
        body = health.json()
    except ValueError:
        return False
    return isinstance(body, dict) and ("proxy_version" in body or body == UNAUTHORIZED)


# This machine


def _loop(settings: Settings) -> Iterator[Finding]:
    upstream = settings.lmstudio_url
    if not settings.demo and upstream.port == settings.listen.port and upstream.host in LOCAL_HOSTS:
        yield Finding("problem", f"lmstudio_url is this bridge's own address: {upstream}.")


def _state(services: Services) -> Iterator[Finding]:
    directory = services.settings.state_dir
    problem = _writable(directory)
    if problem:
        yield Finding("problem", f"The state directory {directory} cannot be written: {problem}.")
    else:
        count = len(services.aliases.all())
        yield Finding("ok", f"The state directory is {directory}: {count} alias{'' if count == 1 else 'es'}.")


def _writable(directory: Path) -> str:
    """Say why a directory cannot be written; one that is not there would be made."""
    if not directory.exists():
        parent = next(path for path in directory.parents if path.exists())
        return "" if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK) else f"it cannot be made in {parent}"
    try:
        with tempfile.TemporaryFile(dir=directory):
            return ""
    except OSError as e:
        return e.strerror or str(e)


def _exposure(settings: Settings) -> Iterator[Finding]:
    if settings.api_key:
        yield Finding("ok", "Clients need the key in api_key.")
    elif settings.listen.is_loopback:
        yield Finding("ok", "Only this machine can ask, without a key.")
    else:
        yield Finding(
            "note",
            f"Everybody on this network can ask, on {settings.listen}: set api_key, or listen on 127.0.0.1.",
        )
    if "*" in settings.allowed_origins:
        yield Finding("note", "Every web page can ask: allowed_origins holds *.")
