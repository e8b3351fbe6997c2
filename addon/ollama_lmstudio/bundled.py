"""The files that come with the package: the script that mitmproxy loads, and the ready configurations.

In a checkout they are beside the package. In a wheel (see pyproject.toml) and in a frozen program, which
holds the package's folder with the same files, they are inside it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parent
SUFFIX: Final = ".yaml"
COMMENT: Final = "#"


def path_of(inside: str, beside: str) -> Path:
    """Return the path of a file or folder, by its path inside the package and that beside it, in a checkout.

    Raise FileNotFoundError if it is in neither place.
    """
    for path in (PACKAGE / inside, PACKAGE.parent / beside):
        if path.exists():
            return path
    raise FileNotFoundError(f"{inside} is missing in {PACKAGE}: install the package again")


def script() -> Path:
    """Return the path of the script that mitmproxy loads."""
    return path_of("script/ollama.py", "ollama.py")


def configurations() -> dict[str, Path]:
    """Return the ready configurations by their names."""
    return {path.stem: path for path in sorted(path_of("configs", "../configs").resolve().glob(f"*{SUFFIX}"))}


def what_for(path: Path) -> str:
    """Return the first line of a configuration's comment, which says what it is for."""
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip(COMMENT).strip().rstrip(":")


def is_temporary() -> bool:
    """Return whether the files are unpacked for the time of this process only, as by a frozen program in one file."""
    return hasattr(sys, "_MEIPASS")
