"""Removing the blobs that no alias needs: LM Studio takes no files, so that most uploads are of no use to anyone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from . import blobs
from .aliases import Aliases, AliasStore, StoreError, broken_files

logger = logging.getLogger(__name__)

MANIFESTS: Final = "manifests"
"""The directory that Ollama has beside its blobs: those of a real Ollama are not ours to remove."""
KEPT_SECONDS: Final = 24 * 60 * 60
"""How long a blob is kept for a request that may still name it."""


def remove(store: AliasStore, directory: Path, digests: Iterable[str]) -> None:
    """Remove blobs, but for those that an alias needs."""
    _unless_needed(store, lambda needed: blobs.remove(directory, set(digests) - needed))


def remove_old(store: AliasStore, directory: Path) -> None:
    """Remove the blobs of a day ago that no alias needs, and what dead processes have left of uploads."""
    if not directory.is_dir() or (directory.parent / MANIFESTS).exists():
        return
    blobs.remove_abandoned(directory)
    if old := blobs.unwanted_since(directory, time.time() - KEPT_SECONDS):
        _unless_needed(store, lambda needed: blobs.remove(directory, old - needed))


def _unless_needed(store: AliasStore, remove: Callable[[set[str]], None]) -> None:
    """Call `remove` with the blobs that must stay, while nobody changes the aliases."""

    def edit(aliases: Aliases) -> None:
        if broken_files(store.directory):
            # The aliases that a user may yet mend need blobs that nobody knows of.
            logger.debug("no blobs are removed: a broken file of aliases has been put aside")
            return
        named = (digest for alias in aliases.values() for digest in alias.adapters.values())
        remove({parsed for digest in named if (parsed := blobs.parse_digest(digest)) is not None})

    try:
        store.change(edit)
    except StoreError as e:
        # Which blobs are needed is not known: all of them stay.
        logger.debug("no blobs are removed: %s", e.message)
