"""`HEAD` and `POST /api/blobs/:digest`: files that clients upload.

LM Studio takes none; they stay in the user's directory for caches, or in `state_dir`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from ..ollama import errors
from ..outcomes import NO_CONTENT_TYPE, Request, Response
from ..services import Services
from ..state import blobs, files

logger = logging.getLogger(__name__)

# A body is hashed and written in pieces of this size: each costs a switch to a thread and back.
PIECE_BYTES = 1 << 20


def _directory(services: Services) -> Path:
    return blobs.directory_in(services.settings.state_dir.cache)


def _digest_in_path(request: Request) -> str:
    return request.path.rpartition("/")[2]


async def head(request: Request, services: Services) -> Response:
    """Return whether a blob exists."""
    asked = _digest_in_path(request)
    digest = blobs.parse_digest(asked)
    if digest is None:
        raise errors.invalid_digest()
    if not await asyncio.to_thread(_is_there, _directory(services), digest):
        raise errors.blob_not_found(asked)
    return Response(HTTPStatus.OK, b"", NO_CONTENT_TYPE)


def _is_there(directory: Path, digest: str) -> bool:
    """Return whether a blob exists; who asks is about to name it in a request, so that it stays for another day."""
    blobs.touch(directory, digest)
    return blobs.blob_path(directory, digest).is_file()


class BlobUpload:
    """Receive a blob. The body is read to its end even if it is refused: clients read no response before."""

    def __init__(self, request: Request, services: Services) -> None:
        self._asked = _digest_in_path(request)
        self._directory = _directory(services)
        self._digest = blobs.parse_digest(self._asked)
        self._piece = bytearray()
        self._writer: blobs.BlobWriter | None = None
        self._aborted = False
        self._response = None if self._digest else _error_response(errors.invalid_digest())
        """The response, where it is known before the end of the body: the rest is then discarded."""

    async def feed(self, data: bytes) -> None:
        """Receive bytes."""
        if self._response is None:
            self._piece += data
            if len(self._piece) >= PIECE_BYTES:
                await self._write()

    async def end(self) -> Response:
        """Store the blob; return 201, or 200 if it existed before."""
        if self._response is None:
            await self._write()
        if self._response is None:
            self._response = await self._in_thread(self._finish)
        return self._response or Response(HTTPStatus.CREATED, b"", NO_CONTENT_TYPE)

    def abort(self) -> None:
        """Discard what has been received, in a thread: a write that is under way may take seconds."""
        self._aborted = True
        asyncio.get_running_loop().run_in_executor(None, self._remove)

    def _remove(self) -> None:
        if self._writer is not None:
            self._writer.abort()

    async def _write(self) -> None:
        data, self._piece = bytes(self._piece), bytearray()
        self._response = await self._in_thread(self._write_now, data)

    async def _in_thread(self, step: Callable[..., Response | None], *arguments: bytes) -> Response | None:
        try:
            return await asyncio.to_thread(step, *arguments)
        except OSError as e:
            self._aborted = True
            await asyncio.to_thread(self._remove)
            logger.warning("a blob could not be stored in %s: %s", self._directory, e)
            reason = e.strerror or str(e)
            full = e.errno in files.DISK_FULL
            status = HTTPStatus.INSUFFICIENT_STORAGE if full else HTTPStatus.INTERNAL_SERVER_ERROR
            return Response.error(status, f"the blob could not be stored in the proxy's state directory: {reason}")

    def _write_now(self, data: bytes) -> Response | None:
        assert self._digest is not None
        if self._writer is None:
            if _is_there(self._directory, self._digest):
                return Response(HTTPStatus.OK, b"", NO_CONTENT_TYPE)
            self._writer = blobs.BlobWriter(self._directory)
            if self._aborted:
                self._writer.abort()
        self._writer.write(data)
        return None

    def _finish(self) -> Response | None:
        assert self._digest is not None
        assert self._writer is not None
        written = self._writer.finish(self._digest)
        return None if written == self._digest else _error_response(errors.digest_mismatch(self._asked, written))


def _error_response(error: errors.OllamaError) -> Response:
    return Response.error(error.status, error.message)
