"""Calls whose model LM Studio evicted, or whose load it aborted, before the first token: mostly for another client."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

from mitmproxy import http

from ..internals.held_heads import HeldBody
from ..lmstudio.errors import error_from_response, is_evicted
from ..outcomes import Response
from ..translate.api_errors import error_answer
from .exchange import Exchange

T = TypeVar("T")

# How often it is looked whether the client is still there that a call of the bridge's own is made for.
LOOK_SECONDS = 0.5
# LM Studio gets this long to end what has gone before a call is sent once more.
SETTLE_SECONDS = 0.3
# LM Studio's status for an eviction, and now and then, and more than the size of what it says.
STATUSES = (HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR)
MAX_BYTES = 4096


async def while_client_waits(held: HeldBody, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what `work` returns; cancel it, and return None, if the client goes."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done() and not held.client_gone:
            await asyncio.wait({task}, timeout=LOOK_SECONDS)
        return task.result() if task.done() else None
    finally:
        task.cancel()


def may_be_told(exchange: Exchange, response: http.Response) -> bool:
    """Return whether a response on `/v1` may say so, in a way that is to be changed."""
    repairs = exchange.bridge.services.settings.repair_passthrough and exchange.path.startswith("/v1/")
    length = response.headers.get("content-length", "")
    return repairs and response.status_code in STATUSES and length.isdecimal() and int(length) <= MAX_BYTES


def error_of(exchange: Exchange, response: http.Response, body: bytes) -> Response | None:
    """Return the 503 for a response that says so, in the shape of the API; None for any other error.

    LM Studio answers 400, which clients take for their own mistake and do not try again.
    """
    if not may_be_told(exchange, response):
        return None
    content_type, secrets = response.headers.get("content-type", ""), exchange.secrets
    error = error_from_response(response.status_code, content_type, body, secrets)
    return error_answer(exchange.path, error.status, error.message) if is_evicted(error) else None
