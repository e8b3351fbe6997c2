"""`HEAD` and `POST /api/blobs/:digest`: files that clients leave here. LM Studio takes none; they are kept in the state
directory.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from ..ollama import errors
from ..outcomes import Request, Response
from ..services import Services
from ..state import blobs

logger = logging.getLogger(__name__)

# A body is hashed and written in pieces of this size, each in a thread.
PIECE_BYTES = 1 << 20
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

NO_BODY = ""


def _directory(services: Services) -> Path:
    return blobs.directory_in(services.settings.state_dir)


def _asked(incoming: Request) -> str:
    return unquote(incoming.path.rpartition("/")[2])


async def head(incoming: Request, services: Services) -> Response:
    """Tell whether a blob is here."""
    asked = _asked(incoming)
    digest = blobs.parse_digest(asked)
    if digest is None:
        raise errors.invalid_digest()
    if not await asyncio.to_thread(blobs.blob_path(_directory(services), digest).is_file):
        raise errors.blob_not_found(asked)
    return Response(200, b"", NO_BODY)


class BlobUpload:
    """Take a blob as it comes. Whatever is wrong, the body is taken to its end: clients read no answer before."""

    def __init__(self, incoming: Request, services: Services) -> None:
        self._asked = _asked(incoming)
        self._directory = _directory(services)
        self._digest = blobs.parse_digest(self._asked)
        self._piece = bytearray()
        self._upload: blobs.BlobWriter | None = None
        self._aborted = False
        self._early = None if self._digest else _error(errors.invalid_digest())
        """The answer, where it is known before the end of the body, which is then not kept."""

    async def feed(self, data: bytes) -> None:
        """Take bytes."""
        if self._early is None:
            self._piece += data
            if len(self._piece) >= PIECE_BYTES:
                await self._write()

    async def end(self) -> Response:
        """Keep the blob; 201, 200 if it was here before."""
        if self._early is None:
            await self._write()
        if self._early is None:
            self._early = await self._guarded(self._finish)
        return self._early or Response(201, b"", NO_BODY)

    def abort(self) -> None:
        """Forget what came. This never waits: what is being written may take seconds to get to the disk."""
        self._aborted = True
        asyncio.get_running_loop().run_in_executor(None, self._remove)

    def _remove(self) -> None:
        if self._upload is not None:
            self._upload.abort()

    async def _write(self) -> None:
        data, self._piece = bytes(self._piece), bytearray()
        self._early = await self._guarded(self._write_now, data)

    async def _guarded(self, step: Callable[..., Response | None], *arguments: bytes) -> Response | None:
        try:
            return await asyncio.to_thread(step, *arguments)
        except OSError as e:
            self._aborted = True
            await asyncio.to_thread(self._remove)
            logger.warning("a blob could not be stored in %s: %s", self._directory, e)
            reason = e.strerror or str(e)
            status = 507 if e.errno in DISK_FULL else 500
            return Response.error(status, f"the blob could not be stored in the proxy's state directory: {reason}")

    def _write_now(self, data: bytes) -> Response | None:
        assert self._digest is not None
        if self._upload is None:
            if blobs.blob_path(self._directory, self._digest).is_file():
                return Response(200, b"", NO_BODY)
            self._upload = blobs.BlobWriter(self._directory)
            if self._aborted:
                self._upload.abort()
        self._upload.write(data)
        return None

    def _finish(self) -> Response | None:
        assert self._digest is not None
        assert self._upload is not None
        found = self._upload.finish(self._digest)
        return None if found == self._digest else _error(errors.digest_mismatch(self._asked, found))


def _error(error: errors.OllamaError) -> Response:
    return Response.error(error.status, error.message)
