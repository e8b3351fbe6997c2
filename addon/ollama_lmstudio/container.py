"""What is other in a container: its addresses and names are not those of the machine."""

from __future__ import annotations

from pathlib import Path

# What Docker and Podman leave in a container.
MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
NO_KEY = (
    "no key is needed (option api_key): who may come in is decided by where the port of this container is published"
)
# Docker Desktop reaches what serves the machine alone, Docker on Linux does not.
LMSTUDIO_HINT = (
    "This is a container: the machine is host.docker.internal, and on Linux LM Studio is reached there only if it "
    "serves on the local network (`lms server start --bind 0.0.0.0`)."
)


def is_container() -> bool:
    """Return whether this runs in a container of Docker or Podman."""
    return any(mark.exists() for mark in MARKS)
