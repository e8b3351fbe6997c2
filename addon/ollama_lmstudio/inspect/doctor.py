"""Check everything that the bridge needs, and report what is wrong and what to do about it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from .. import __version__, container
from ..access import UNAUTHORIZED
from ..internals import presence
from ..lmstudio.catalog import Catalog
from ..lmstudio.errors import LMStudioError, is_token_refused, scrub
from ..options import DEFAULT_LISTEN_PORT, LOOPS, Listen, Settings, StateDirs
from ..services import Services
from ..state import aliases
from ..translate.models import find_aliases
from ..units import plural

Verdict = Literal["ok", "note", "problem"]

# Timeouts of a request to this machine, and of one for which the bridge waits for LM Studio.
HTTP_SECONDS = 1.0
HEALTH_SECONDS = 15.0

# Who listens on a port, and what to do about it.
FREE = "free"
NO_MODELS = "it has no models yet: download one there, or with ollama pull"
UNTOLD = (
    "it tells neither sizes nor what is loaded, as Olla does not: /api/ps shows nothing, keep_alive: 0 may fail, and "
    "/api/pull does"
)
THIS = "this bridge's already"
OLLAMA = "taken by an Ollama server: stop it, or choose another with listen"
ANOTHER_BRIDGE = "taken by another bridge: stop it, or choose another with listen"
OTHER = "taken by another program: choose another with listen"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    verdict: Verdict
    text: str

    def __str__(self) -> str:
        return f"{self.verdict:>7}: {self.text}"


async def examine(services: Services, *, serving: bool | None) -> list[Finding]:
    """Check LM Studio, its models and token, the port, who has access, and the directories of what is kept.

    `serving` is whether this process listens on the port; None where it is not meant to. Changes nothing, never raises.
    """
    found = [Finding("note", f"ollama-lmstudio-proxy {__version__}")]
    try:
        catalog = await services.catalog.refresh()
    except LMStudioError as e:
        is_token_missing = is_token_refused(e) and not services.settings.lmstudio_token
        message = (
            "LM Studio asks for a token: set lmstudio_token" if is_token_missing else scrub(e.message, services.secrets)
        )
        found.append(Finding("problem", message))
    else:
        found += _lmstudio(catalog, services)
        found.append(await _token(services))
    found += _loop(services.settings)
    found += await _port(services, serving=serving)
    found += _access(services)
    found += await asyncio.to_thread(_state, services.settings.state_dir)
    return found


def _lmstudio(catalog: Catalog, services: Services) -> Iterator[Finding]:
    url, models = services.settings.lmstudio_url, catalog.models
    yield Finding("ok", f"LM Studio {version(catalog)} answers at {services.client.url or url}")
    count = len(models)
    yield Finding("ok" if models else "problem", f"it lists {count} {plural(count, 'model')}" if models else NO_MODELS)
    loaded = [instance.id for model in models for instance in model.instances]
    if catalog.tells_loaded:
        nothing = "no model is loaded: the first request will wait"
        yield Finding("note", f"loaded: {', '.join(loaded)}" if loaded else nothing)
    else:
        yield Finding("note", UNTOLD)
    for skipped in catalog.skipped:
        yield Finding("problem", f"a model in its list cannot be used: {skipped}")
    known = {found.alias.name for found in find_aliases(catalog, services) if found.alias}
    for alias in services.aliases.all().values():
        if alias.name not in known:
            yield Finding("note", f"it does not have {alias.target}, which the alias {alias.name} stands for")


async def _token(services: Services) -> Finding:
    """Check whether LM Studio requires a token; it has answered a request with the configured one."""
    if not services.settings.lmstudio_token:
        return Finding("ok", "it asks for no token")
    anonymous = services.client.without_token()
    try:
        await anonymous.catalog()
    except LMStudioError as e:
        if is_token_refused(e):
            return Finding("ok", "it asks for a token, and takes the one in lmstudio_token")
        return Finding("note", f"whether it asks for a token cannot be told: {scrub(e.message, services.secrets)}")
    finally:
        await anonymous.aclose()
    return Finding("note", "it asks for no token: the one in lmstudio_token is not needed")


# A version of LM Studio, and what appeared in its model list with it; the newest first.
_SIGNS: Sequence[tuple[str, Callable[[Catalog], bool]]] = (
    ("0.4.22", lambda catalog: any(i.remaining_ttl_seconds is not None for m in catalog.models for i in m.instances)),
    ("0.4.8", lambda catalog: any(model.reasoning for model in catalog.models)),
    ("0.4.0", lambda catalog: catalog.source == "v1"),
    ("0.3.16", lambda catalog: any(model.capabilities_known for model in catalog.models)),
    ("0.3.6", lambda catalog: catalog.source == "v0"),
)
OLDER = "before 0.3.6, or another server of OpenAI's API, such as Olla,"


def version(catalog: Catalog) -> str:
    """Return the version of LM Studio, as far as its model list shows it: it has no endpoint for it."""
    found = next((number for number, shows in _SIGNS if shows(catalog)), None)
    return f"{found} or newer" if found else OLDER


def _loop(settings: Settings) -> Iterator[Finding]:
    if settings.loops:
        yield Finding("problem", LOOPS.format(settings.lmstudio_url))


async def _port(services: Services, *, serving: bool | None) -> list[Finding]:
    listen = services.settings.listen
    port, (own, *others) = listen.port, listen.reached_by
    found: list[Finding]
    if serving:
        found = [await _own(own)]
    else:
        holder = await who_serves(own)
        if serving is False and holder == FREE:
            holder = "not served: the log says why"
        found = [Finding("ok" if holder in (FREE, THIS) else "problem", f"port {port} is {holder}")]
    for other in others:
        taken = await (another_at(other) if serving else who_serves(other))
        if taken not in (None, FREE, THIS):
            found.append(Finding("problem", f"{other} is {taken}"))
    if serving and port != DEFAULT_LISTEN_PORT and await who_serves(Listen("127.0.0.1", DEFAULT_LISTEN_PORT)) == OLLAMA:
        message = f"clients that are not told port {port} find an Ollama server on {DEFAULT_LISTEN_PORT}"
        found.append(Finding("note", message))
    return found


async def _own(address: Listen) -> Finding:
    """Check whether what this process serves on is reached: the system may let another program have the port, too."""
    match await presence.at(address.host, address.port):
        case presence.Presence.THIS:
            return Finding("ok", f"port {address.port} is served by this process")
        case presence.Presence.NOBODY:
            return Finding("problem", f"port {address.port} is not reached: nobody answers at {address}")
    return Finding("problem", f"{address} is {await holder_of(address)}")


async def another_at(address: Listen) -> str | None:
    """Return who listens on an address of this machine, if it is another process."""
    if await presence.at(address.host, address.port) is presence.Presence.ANOTHER:
        return await holder_of(address)
    return None


async def holder_of(address: Listen) -> str:
    """Return which other process listens on an address, to be told after its name."""
    return {THIS: ANOTHER_BRIDGE, FREE: OTHER}.get(holder := await who_serves(address), holder)


async def who_serves(address: Listen) -> str:
    """Return who listens on an address of this machine."""
    timeout = httpx.Timeout(HTTP_SECONDS, connect=presence.DIAL_SECONDS)
    async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:
        try:
            root = await client.get(f"http://{address}/")
            # The bridge asks LM Studio before it answers this one; an Ollama server answers 404 at once.
            health = await client.get(f"http://{address}/health", timeout=HEALTH_SECONDS)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return FREE
        except httpx.HTTPError:
            return OTHER
    # With `api_key` set, the bridge answers 401 with this body; an Ollama server asks for no key.
    if b'"proxy_version"' in health.content or health.content == UNAUTHORIZED.body:
        return THIS
    return OLLAMA if root.text == "Ollama is running" else OTHER


def _access(services: Services) -> Iterator[Finding]:
    settings = services.settings
    for text in services.keys.problems():
        yield Finding("problem", f"api_keys: {text}")
    for text in services.keys.open_files():
        yield Finding("note", f"api_keys: {text}")
    if settings.api_keys:
        names = ", ".join(services.keys.names) or "it has none"
        yield Finding("ok", f"{settings.listen} asks for a key, one of api_keys: {names}")
    if settings.api_key:
        yield Finding("ok", f"{settings.listen} asks for the key api_key")
    elif settings.api_keys:
        return
    elif settings.listen.is_loopback:
        yield Finding("ok", f"{settings.listen} is reached from this machine only")
    elif container.is_container():
        yield Finding("note", container.NO_KEY)
    else:
        yield Finding("note", f"everybody on this network can use {settings.listen}: to ask for a key, set api_key")


def _state(directories: StateDirs) -> list[Finding]:
    """Check the directories, and whether there are aliases that the bridge will move when it starts."""
    if directories.data == directories.cache:
        found = [_directory("state directory", directories.data)]
    else:
        found = [
            _directory("directory of aliases", directories.data),
            _directory("directory of uploaded files", directories.cache),
        ]
    for path in directories.former:
        if aliases.are_in(path):
            found.append(Finding("note", f"aliases are still in {path}: the bridge moves them when it starts"))
    return found


def _directory(what: str, directory: Path) -> Finding:
    """Check whether a directory can be written, or created: that happens with the first write."""
    try:
        if directory.exists():
            with tempfile.TemporaryFile(dir=directory) as file:
                file.write(b"test")
        else:
            parent = next(path for path in directory.absolute().parents if path.exists())
            with tempfile.TemporaryDirectory(dir=parent):
                pass
    except OSError as e:
        return Finding("problem", f"the {what} {directory} cannot be written: {e.strerror or e}")
    return Finding("ok", f"the {what} {directory} can be written")
