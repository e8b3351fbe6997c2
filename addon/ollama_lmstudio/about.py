"""What --version and --licenses tell: this program, what it runs on, and, in a binary, what is bundled in it."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from . import __version__

NAME: Final = "ollama-lmstudio-proxy"
# A binary has it, made when that was built.
NOTICES: Final = Path(__file__).parent / "notices.json"
LICENSE_CLASSIFIER: Final = "License :: "
# The names under which packages keep licences, in any case, with any suffix.
LICENSE_FILES: Final = ("licen", "copying", "notice", "authors")
# A field License may hold the whole text, where its name is expected.
LONGEST_NAME: Final = 60
UNNAMED: Final = "see --licenses"
OTHERS: Final = "The packages that this runs on are installed beside it, each with its licence: pip show --verbose NAME"
# What the conversation page is made with, in a folder of its own with the text of its licence.
PAGE: Final = (("lit-html", "3.3.3", "BSD-3-Clause"), ("markdown-it", "15.0.3", "MIT"))
VENDOR: Final = Path(__file__).parent / "page" / "static" / "vendor"


@dataclass(frozen=True)
class Notice:
    """One package that is bundled: its name and version, the name of its licence, and the texts that come with it."""

    name: str
    version: str
    license: str
    text: str


def notice_of(distribution: metadata.Distribution) -> Notice:
    """Return the notice of an installed package, from its own metadata."""
    texts = [
        Path(str(file.locate())).read_text(encoding="utf-8", errors="replace").strip()
        for file in distribution.files or []
        if ".dist-info" in str(file.parent) and file.name.lower().startswith(LICENSE_FILES)
    ]
    known = distribution.metadata
    return Notice(known["Name"], distribution.version, _license_name(known), "\n\n".join(texts))


def _license_name(known: metadata.PackageMetadata) -> str:
    """Return a licence's name: PEP 639's expression, else the classifiers, else the old field's first line."""
    if "License-Expression" in known:
        return known["License-Expression"]
    classifiers = [text for text in known.get_all("Classifier") or [] if text.startswith(LICENSE_CLASSIFIER)]
    # The last part of "License :: OSI Approved :: MIT License"; one that ends before it names none.
    names = [text.rpartition(" :: ")[2] for text in classifiers if not text.endswith("OSI Approved")]
    if names:
        return " or ".join(names)
    first = (known.get_all("License") or [""])[0].strip().partition("\n")[0]
    return first if 0 < len(first) <= LONGEST_NAME else UNNAMED


def of_page() -> list[Notice]:
    """Return the notices of the libraries that the conversation page is made with, which are in this package."""
    return [
        Notice(name, version, terms, (VENDOR / name / "LICENSE").read_text(encoding="utf-8").strip())
        for name, version, terms in PAGE
    ]


def write(notices: Iterable[Notice], libraries: Iterable[str], path: Path) -> None:
    """Write what a binary bundles, for `bundled()`; `libraries` are those of the system that it was built on."""
    ordered = sorted(notices, key=lambda notice: notice.name.lower())
    kept = {"notices": [asdict(notice) for notice in ordered], "libraries": sorted(set(libraries))}
    path.write_bytes(json.dumps(kept).encode())


def bundled(path: Path = NOTICES) -> tuple[list[Notice], list[str]]:
    """Return what is bundled in this binary, and the system's libraries in it; nothing if this is none."""
    if not path.is_file():
        return [], []
    kept = json.loads(path.read_text(encoding="utf-8"))
    return [Notice(**notice) for notice in kept["notices"]], kept["libraries"]


def version(path: Path = NOTICES) -> str:
    """Return what --version says. Its first line is the name and the version, for programs."""
    return "\n".join(_version_lines(*bundled(path)))


def _version_lines(notices: list[Notice], libraries: list[str]) -> Iterator[str]:
    yield f"{NAME} {__version__}"
    # Without an import of mitmproxy, which takes most of a second. A binary has no metadata but the notices.
    versions = {notice.name.lower(): notice.version for notice in notices}
    yield f"mitmproxy {versions.get('mitmproxy') or metadata.version('mitmproxy')}"
    yield f"Python {platform.python_version()}"
    yield f"platform {sys.platform} {platform.machine()}"
    yield f"stand-in for LM Studio (--demo) {__package__}.sim {__version__}"
    yield f"page in mitmweb: {', '.join(f'{name} {version} ({terms})' for name, version, terms in PAGE)}"
    if not notices:
        return
    yield "\nBundled, with their licences (full texts: --licenses):"
    for notice in notices:
        yield f"  {notice.name} {notice.version}: {notice.license}"
    if libraries:
        yield f"Libraries of the system that this was built on: {', '.join(libraries)}"


def licenses(path: Path = NOTICES) -> str:
    """Return the texts of the licences of all that is bundled, and where those of the rest are."""
    notices, _ = bundled(path)
    rule = "=" * LONGEST_NAME
    texts = [
        f"{rule}\n{notice.name} {notice.version}: {notice.license}\n{rule}\n\n{notice.text}"
        for notice in [*notices, *of_page()]
    ]
    return "\n\n".join([*texts, *([] if notices else [OTHERS])])
