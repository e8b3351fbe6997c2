"""The arrows between the rooms point one way, and mitmproxy's private names stay in one of them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "addon" / "ollama_lmstudio"
NAME = PACKAGE.name

# Which room, or module of the package itself, may import which others; every room may import itself.
TOOLS = frozenset({"compression", "tasks", "threads", "tolerant_json", "unicode", "units"})
LEAVES = TOOLS | {"__init__", "bundled", "container", "options"}
WIRES = frozenset({"lmstudio", "ollama", "state"})
SHARED = LEAVES | WIRES | {"keys", "lifetimes", "outcomes", "progress", "services"}
ENDPOINTS = SHARED | {"access", "endpoints", "routes", "translate"}
MAY_IMPORT: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(LEAVES, frozenset()),
    "options": frozenset({"keys"}),
    "__init__": frozenset({"lazy"}),
    "lazy": frozenset(),
    "sim": frozenset(),
    "ollama": TOOLS,
    "lmstudio": TOOLS,
    "state": frozenset(),
    "internals": frozenset(),
    "outcomes": frozenset({"lmstudio", "ollama"}),
    "keys": frozenset(),
    "access": frozenset({"keys", "outcomes"}),
    "progress": frozenset({"units"}),
    "lifetimes": LEAVES | WIRES | {"progress"},
    "services": LEAVES | WIRES | {"keys", "lifetimes", "outcomes"},
    "translate": SHARED,
    "endpoints": SHARED | {"translate"},
    "routes": SHARED | {"endpoints"},
    "record": TOOLS | {"internals", "lmstudio", "outcomes", "progress"},
    "exchanges": ENDPOINTS | {"internals", "record"},
    "inspect": ENDPOINTS | {"internals", "record"},
    "page": ENDPOINTS | {"exchanges", "inspect", "internals", "record"},
    "streams": frozenset(),
    "startup": ENDPOINTS | {"inspect", "internals", "sim", "streams"},
    "addon": ENDPOINTS | {"exchanges", "inspect", "internals", "lazy", "page", "record", "startup"},
    "about": frozenset({"__init__"}),
    "cli": LEAVES | {"about", "streams"},
    "launch": frozenset({"cli", "streams"}),
    "__main__": frozenset({"launch"}),
}

# What of mitmproxy is documented, or so old that add-ons everywhere use it. All else is touched in internals/ alone.
PUBLIC = frozenset(
    {
        "addonmanager",
        "command",
        "connection",
        "contentviews",
        "ctx",
        "exceptions",
        "flow",
        "http",
        "log",
        "optmanager",
        "proxy.mode_specs",
        "tools.main",
        "types",
    }
)
# Attributes of mitmproxy's objects that are neither documented nor meant for addons.
PRIVATE_NAMES = re.compile(
    r"\b(process_deferred|setup_servers|_by_name|flowmap|should_intercept|sig_store_refresh|transports)\b"
    r"|\boptions\.deferred\b|\bserver\.is_running\b|\bcontentviews\.(?:views|registry)\b"
    r"|\baddons\.get\(\"(?!bridge\")"
)

FILES = sorted(PACKAGE.rglob("*.py"))


def modules(path: Path) -> Iterator[str]:
    """Return the absolute names of what a file imports, wherever in the file."""
    here = (NAME, *path.relative_to(PACKAGE).with_suffix("").parts)
    package = here[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            target = ".".join((*base, *((node.module,) if node.module else ())))
            yield from (f"{target}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    """Return the room of a file; a module of the package itself is one of its own."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


ROOMS = frozenset(room(path) for path in FILES)


def own_imports(path: Path) -> Iterator[str]:
    """Return the rooms that a file imports."""
    for name in modules(path):
        parts = name.split(".")
        if parts[0] == NAME:
            # `from .. import __version__` is of the package itself.
            yield parts[1] if len(parts) > 1 and parts[1] in ROOMS else "__init__"


def test_the_table_has_every_room() -> None:
    assert set(MAY_IMPORT) == ROOMS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_one_way(path: Path) -> None:
    here = room(path)
    assert set(own_imports(path)) - {here} <= MAY_IMPORT[here]


def test_there_is_no_circle() -> None:
    done: set[str] = set()
    while left := ROOMS - done:
        free = {name for name in left if MAY_IMPORT[name] - {name} <= done}
        assert free, f"each of these may import another: {sorted(left)}"
        done |= free


@pytest.mark.parametrize("where", ["ollama", "lmstudio", "state", "sim"])
def test_what_speaks_a_wire_knows_no_mitmproxy(where: str) -> None:
    for path in (PACKAGE / where).rglob("*.py"):
        assert not [name for name in modules(path) if name.partition(".")[0] == "mitmproxy"], path


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if room(path) not in ("internals", "sim")],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_private_names_of_mitmproxy_stand_in_internals_only(path: Path) -> None:
    for name in modules(path):
        parts = name.split(".")
        if parts[0] == "mitmproxy":
            rest = name.removeprefix("mitmproxy.")
            assert any(rest == public or rest.startswith(f"{public}.") for public in PUBLIC), name
            assert not any(part.startswith("_") for part in parts), name
    assert not PRIVATE_NAMES.findall(path.read_text(encoding="utf-8"))


def circles(path: Path) -> list[str]:
    """Return the imports between the modules of one room that lead back to where they began."""
    arrows = {
        file.stem: {
            name.split(".")[len(path.relative_to(PACKAGE).parts) + 1]
            for name in modules(file)
            if name.startswith(f"{NAME}.{path.name}.")
        }
        for file in path.glob("*.py")
        if file.stem != "__init__"
    }
    done: set[str] = set()
    while left := arrows.keys() - done:
        free = {name for name in left if arrows[name] & arrows.keys() <= done}
        if not free:
            return sorted(left)
        done |= free
    return []


@pytest.mark.parametrize("path", [path for path in PACKAGE.iterdir() if path.is_dir()], ids=lambda path: path.name)
def test_no_room_has_a_circle_in_it(path: Path) -> None:
    assert circles(path) == []


def text_writers(path: Path) -> Iterator[str]:
    """Return the calls in a file that write text with the system's ends of lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            values = [value for arg in (*node.args, *(k.value for k in node.keywords)) for value in ast.walk(arg)]
            modes = {str(value.value) for value in values if isinstance(value, ast.Constant)}
            writes = name == "write_text" or (name == "open" and modes & {"w", "a", "x", "r+", "w+"})
            if writes and not any(keyword.arg == "newline" for keyword in node.keywords):
                yield f"{path.name}:{node.lineno}"


def test_text_is_written_with_the_same_ends_of_lines_everywhere() -> None:
    assert [found for path in FILES for found in text_writers(path)] == []


def test_only_declared_packages_are_imported() -> None:
    declared = {"mitmproxy", "httpx", "pydantic", "pydantic_core", "platformdirs", "tornado", "h11", "PIL", NAME}
    declared |= {"prometheus_client"}
    found = {name.partition(".")[0] for path in FILES for name in modules(path)}
    assert found - declared - sys.stdlib_module_names == set()


def test_what_takes_long_to_load_is_not_loaded_before_it_serves() -> None:
    """pydantic, and what it makes of classes, take a tenth of a second: they are loaded while clients are answered."""
    program = "import sys, ollama_lmstudio.addon; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert f"{NAME}.lmstudio.client" in loaded
    assert not loaded & {"prometheus_client", f"{NAME}.record.metrics"}
    assert not loaded & {"pydantic", f"{NAME}.lmstudio.catalog_entries"}
