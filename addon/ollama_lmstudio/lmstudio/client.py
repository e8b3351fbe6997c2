"""Calls to LM Studio that no client's request becomes: the model list, load, unload, download.

Every failure is raised as LMStudioError, and no message holds the token.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlsplit

import httpx

from .. import tolerant_json
from .catalog import Catalog, NotACatalog
from .errors import (
    MASK,
    LMStudioError,
    LMStudioTimeout,
    LMStudioUnreachable,
    error_from_response,
    scrub,
    scrub_bytes,
    unexpected_success,
)
from .localhost import LocalhostTransport

logger = logging.getLogger(__name__)

OPENAI_LIST: Final = "/v1/models"
CATALOG_PATHS: Final = ("/api/v1/models", "/api/v0/models", OPENAI_LIST)
"""The model lists of LM Studio 0.4, of 0.3.6 and of older versions, the richest first."""
CATALOG_PATH_SECONDS: Final = 600.0
"""How long an older list is asked for first, before the richest is tried again: LM Studio may have been updated."""

CONNECT_SECONDS: Final = 3.0
"""Timeout of a TCP connection; LM Studio is on this machine or in its network.

Windows dials a port that refuses the connection three times, and says so after two seconds: until then, nobody can tell
it from a machine that does not answer.
"""
ANSWER_SECONDS: Final = 10.0
"""Timeout of a call that neither loads a model nor runs one: LM Studio answers these at once, unless it is stuck."""
KEEPALIVE_SECONDS: Final = 4.0
"""How long an idle connection is kept: LM Studio closes it after 5 s, and a request sent at that moment is lost."""


ALL_FAILED: Final = "All connection attempts failed"
LOAD_ON_DEMAND: Final = "load on demand"
HEALTH: Final = "health"
"""The purpose of the calls that only find out whether LM Studio answers."""
ONE_WORD: Final = "hi"
"""The prompt of a call whose answer does not matter."""


CANCELLED: Final = "cancelled"
"""The error of a call that nobody waits for any more."""


@dataclass(slots=True, eq=False)
class ClientCall:
    """One call as it goes over the wire, with its secrets masked; times are seconds since the epoch.

    `ended` is 0 while it runs. Without a response `status` is None and `error` the reason.
    """

    method: str
    url: str
    request_headers: tuple[tuple[str, str], ...]
    request_body: bytes
    started: float
    purpose: str = ""
    """What the call is for, where its path does not tell."""
    status: int | None = None
    response_headers: tuple[tuple[str, str], ...] = ()
    response_body: bytes = b""
    ended: float = 0.0
    error: str | None = None


def _load_parser() -> Callable[[object], Catalog]:
    """Load what reads model lists. It takes a tenth of a second, in which a server that starts answers nobody."""
    from .catalog_entries import parse_catalog

    return parse_catalog


class Client:
    """A client of the LM Studio at a URL (http or https, with or without a path prefix).

    Connections are opened in the event loop that makes the first call, and belong to it.
    Every call raises LMStudioError: LMStudioUnreachable if nothing listens, LMStudioTimeout if no answer
    comes in time.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = ANSWER_SECONDS,
        connect_timeout: float = CONNECT_SECONDS,
        verify: ssl.SSLContext | bool = True,
        on_call: Callable[[ClientCall], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a client; `timeout` bounds each call, from its start to the response's end.

        Calls that load or run models have another one. `on_call` is called with every request, repeated and failed ones
        too: when it begins, and with the same call when it has ended.
        Raises ValueError if `url` is not an http or https URL, or if no header can hold `token`.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https URL: {url}")
        token = (token or "").strip()
        if not token.isprintable():
            raise ValueError("a token cannot hold line breaks or other control characters")
        self.url = url.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._verify = verify
        self._on_call = on_call
        self._clock = clock
        self._secrets = tuple(secret for secret in (token, parts.password) if secret)
        self._masked_url = scrub(self.url, self._secrets)
        self._http: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._catalog_path = CATALOG_PATHS[0]
        self._catalog_path_until = 0.0
        self._parse_catalog: Callable[[object], Catalog] | None = None

    async def catalog(self, purpose: str = "") -> Catalog:
        """Read the model list from the richest of the three endpoints that this LM Studio has."""
        first_error: LMStudioError | None = None
        if self._parse_catalog is None:
            # In a thread: clients are answered meanwhile.
            self._parse_catalog = await asyncio.to_thread(_load_parser)
        for path in self._catalog_paths():
            response = await self._send("GET", path, purpose=purpose)
            try:
                catalog = self._parse_catalog(self._read(response, ("models", "data")))
            except NotACatalog as exc:
                error = LMStudioError(
                    HTTPStatus.BAD_GATEWAY, f"LM Studio's answer to GET {path} is not a model list: {exc}"
                )
            except LMStudioError as exc:
                if not response.is_success and response.status_code not in _NO_SUCH_ENDPOINT:
                    raise
                error = exc
            else:
                if path != self._catalog_path:
                    self._catalog_path = path
                    self._catalog_path_until = self._clock() + CATALOG_PATH_SECONDS
                return catalog
            first_error = first_error or error
        # That a newer version may have the path is said of every path that LM Studio does not know, a wrong one too.
        said = first_error.message.rpartition(" It says: ")[2] if first_error else ""
        raise LMStudioError(
            HTTPStatus.BAD_GATEWAY,
            f"There is no model list of LM Studio at {self._masked_url}: something else answers there, or the path is "
            f"wrong. Set lmstudio_url to the address of LM Studio's server, without /v1. What answers says: {said}",
        )

    async def offered(self) -> frozenset[str]:
        """Return the ids in OpenAI's list of models."""
        body = self._read(await self._send("GET", OPENAI_LIST), ("data",))
        rows = body["data"] if isinstance(body["data"], list) else []
        return frozenset(row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str))

    async def load(
        self,
        model: str,
        context_length: int | None = None,
        settings: Mapping[str, object] | None = None,
        *,
        timeout: float,
    ) -> dict[str, object]:
        """Load a model, again if it is loaded already, and return LM Studio's description of the instance.

        `settings` are further members of the body. With a `context_length` the description has the `load_config` that
        has come of it. LM Studio answers when the model is loaded; after `timeout` seconds LMStudioTimeout is raised.
        """
        body: dict[str, object] = {"model": model, **(settings or {})}
        if context_length is not None:
            body |= {"context_length": context_length, "echo_load_config": True}
        return self._read_any(await self._send("POST", "/api/v1/models/load", body, timeout=timeout))

    async def use_once(self, model: str, ttl: Mapping[str, int], *, embeds: bool, timeout: float) -> None:
        """Have a model answer with one token, or embed one word: LM Studio loads it for that on demand.

        `ttl` is the member of that name of the body, if any. After `timeout` seconds LMStudioTimeout is raised.
        """
        body: dict[str, object] = {"model": model, **ttl}
        if embeds:
            path = "/v1/embeddings"
            body["input"] = ONE_WORD
        else:
            path = "/v1/chat/completions"
            body |= {"messages": [{"role": "user", "content": ONE_WORD}], "max_tokens": 1, "stream": False}
        self._read_any(await self._send("POST", path, body, timeout=timeout, purpose=LOAD_ON_DEMAND))

    async def unload(self, instance_id: str) -> None:
        """Unload an instance; LM Studio wants its exact id, and ends what it is generating."""
        self._read_any(await self._send("POST", "/api/v1/models/unload", {"instance_id": instance_id}))

    async def download(self, model: str, quantization: str | None = None) -> dict[str, object]:
        """Start a download and return its job: `status`, and `job_id` unless that is `already_downloaded`.

        `model` is a catalog id or a full Hugging Face URL; `quantization` goes with a URL only.
        """
        body: dict[str, object] = {"model": model}
        if quantization is not None:
            body["quantization"] = quantization
        return self._read(await self._send("POST", "/api/v1/models/download", body), ("status",))

    async def download_status(self, job_id: str) -> dict[str, object]:
        """Return the progress of a download (`status`, `downloaded_bytes`, `total_size_bytes`, ...)."""
        path = f"/api/v1/models/download/status/{quote(job_id, safe='')}"
        return self._read(await self._send("GET", path), ("status",))

    async def post(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        """Return status, content type and body of a call for inference, however long it takes."""
        response = await self._send("POST", path, body, timeout=math.inf)
        return response.status_code, response.headers.get("Content-Type", ""), response.content

    def without_token(self) -> Client:
        """Return a client of the same LM Studio that sends no token and reports no calls."""
        return Client(self.url, timeout=self._timeout, connect_timeout=self._connect_timeout, verify=self._verify)

    async def aclose(self) -> None:
        """Close all connections; later calls fail."""
        self._closed = True
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    def close_soon(self) -> None:
        """Close all connections from code that cannot wait, in the event loop that they belong to."""
        self._closed = True
        http, self._http = self._http, None
        if http is not None and self._loop is not None and self._loop.is_running():
            asyncio.run_coroutine_threadsafe(http.aclose(), self._loop)

    def _catalog_paths(self) -> Iterable[str]:
        if self._catalog_path != CATALOG_PATHS[0] and self._clock() >= self._catalog_path_until:
            self._catalog_path = CATALOG_PATHS[0]
        return dict.fromkeys((self._catalog_path, *CATALOG_PATHS))

    def _connections(self) -> httpx.AsyncClient:
        if self._closed:
            raise LMStudioError(HTTPStatus.SERVICE_UNAVAILABLE, "The connection to LM Studio has been closed.")
        if self._http is None:
            self._loop = asyncio.get_running_loop()
            limits = httpx.Limits(keepalive_expiry=KEEPALIVE_SECONDS)
            self._http = httpx.AsyncClient(
                transport=LocalhostTransport(httpx.AsyncHTTPTransport(verify=self._certificates(), limits=limits)),
                timeout=httpx.Timeout(None, connect=self._connect_timeout),
                follow_redirects=False,
                trust_env=False,
            )
        return self._http

    def _certificates(self) -> ssl.SSLContext | bool:
        """Return what httpx makes its TLS context of. To load the certificates takes it a tenth of a second."""
        is_encrypted = urlsplit(self.url).scheme == "https"
        return self._verify if is_encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def _send(
        self,
        method: str,
        path: str,
        body: dict[str, object] | bytes | None = None,
        *,
        timeout: float | None = None,
        purpose: str = "",
    ) -> httpx.Response:
        """Send a request and read the whole response; a GET whose connection was dropped is sent once more."""
        seconds = self._timeout if timeout is None else timeout
        try:
            return await self._send_once(method, path, body, seconds, purpose)
        except _ConnectionDropped:
            if method != "GET":
                raise
        return await self._send_once(method, path, body, seconds, purpose)

    async def _send_once(
        self, method: str, path: str, body: dict[str, object] | bytes | None, seconds: float, purpose: str
    ) -> httpx.Response:
        http = self._connections()
        request = self._request(http, method, path, body)
        response: httpx.Response | None = None
        problem: str | None = CANCELLED
        call = self._report_begin(request, purpose)
        try:
            async with asyncio.timeout(seconds):
                response = await http.send(request)
            problem = None
        except (TimeoutError, httpx.HTTPError) as exc:
            error = self._error_of(exc, f"{method} {path}", seconds)
            problem = error.message
            raise error from exc
        finally:
            self._report_end(call, response, problem)
        return response

    def _request(
        self, http: httpx.AsyncClient, method: str, path: str, body: dict[str, object] | bytes | None
    ) -> httpx.Request:
        headers = [(b"Accept", b"application/json")]
        if self._token:
            headers.append((b"Authorization", b"Bearer " + self._token.encode()))
        if body is None:
            return http.build_request(method, self.url + path, headers=headers)
        headers.append((b"Content-Type", b"application/json"))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return http.build_request(method, self.url + path, headers=headers, content=content)

    def _error_of(self, exc: TimeoutError | httpx.HTTPError, what: str, seconds: float) -> LMStudioError:
        reason = scrub(str(exc), self._secrets)
        if isinstance(exc, httpx.ConnectTimeout):
            return LMStudioUnreachable(self._masked_url, f"no answer within {self._connect_timeout:g} seconds")
        if isinstance(exc, httpx.ConnectError):
            # httpcore's words for several addresses, each of which has its own reason, say no more than this error.
            return LMStudioUnreachable(self._masked_url, "" if reason == ALL_FAILED else reason)
        if isinstance(exc, TimeoutError):
            return LMStudioTimeout(what, seconds)
        if isinstance(exc, httpx.NetworkError | httpx.RemoteProtocolError):
            message = f"LM Studio closed the connection before it had answered {what}."
            return _ConnectionDropped(HTTPStatus.BAD_GATEWAY, message)
        return LMStudioError(HTTPStatus.BAD_GATEWAY, f"{what} of LM Studio failed: {reason}")

    def _read(self, response: httpx.Response, wanted: tuple[str, ...]) -> dict[str, object]:
        """Return the JSON object of a success that has one of the wanted keys; raise LMStudioError for any other."""
        if not response.is_success:
            raise self._refusal(response)
        try:
            body = json.loads(response.content)
        except (ValueError, RecursionError):
            raise self._refusal(response) from None
        if error := unexpected_success(body, wanted, self._secrets):
            raise error
        parsed: dict[str, object] = body
        return parsed

    def _read_any(self, response: httpx.Response) -> dict[str, object]:
        """Return the JSON object of a success, empty if it is none; raise LMStudioError for an error, also in a 200.

        What a load and an unload are answered with has changed, and may change again: their status tells.
        """
        body = tolerant_json.loads(response.content) if response.is_success else None
        if not response.is_success or (isinstance(body, dict) and body.get("error")):
            raise self._refusal(response)
        return body if isinstance(body, dict) else {}

    def _refusal(self, response: httpx.Response) -> LMStudioError:
        content_type = response.headers.get("Content-Type", "")
        return error_from_response(response.status_code, content_type, response.content, self._secrets)

    def _report_begin(self, request: httpx.Request, purpose: str) -> ClientCall | None:
        if self._on_call is None:
            return None
        call = ClientCall(
            method=request.method,
            url=scrub(str(request.url), self._secrets),
            request_headers=self._masked_headers(request.headers),
            request_body=scrub_bytes(request.content, self._secrets),
            started=time.time(),
            purpose=purpose,
        )
        self._report(call)
        return call

    def _report_end(self, call: ClientCall | None, response: httpx.Response | None, problem: str | None) -> None:
        if call is None:
            return
        call.ended, call.error = time.time(), problem
        if response is not None:
            call.status = response.status_code
            call.response_headers = self._masked_headers(response.headers)
            call.response_body = scrub_bytes(response.content, self._secrets)
        self._report(call)

    def _report(self, call: ClientCall) -> None:
        try:
            assert self._on_call is not None
            self._on_call(call)
        except Exception:
            logger.exception("a call to LM Studio could not be shown")

    def _masked_headers(self, headers: httpx.Headers) -> tuple[tuple[str, str], ...]:
        return tuple(
            (name.decode("latin-1"), MASK if name.lower() == b"authorization" else value.decode("latin-1"))
            for name, value in headers.raw
        )


# LM Studio answers 200 to a path that it does not know; a proxy in front of it may do better.
_NO_SUCH_ENDPOINT: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})


class _ConnectionDropped(LMStudioError):  # noqa: N818
    """The connection ended before the answer did."""
