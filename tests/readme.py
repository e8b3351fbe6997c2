"""The README's tables, made of the code's tables. `python tests/readme.py` writes them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from ollama_lmstudio import options, routes
from ollama_lmstudio.inspect.commands import Commands
from ollama_lmstudio.lmstudio.apis import PREFIXES
from ollama_lmstudio.translate.options import OPENAI_KEYS, OPTION_TO_LMSTUDIO
from ollama_lmstudio.translate.repairs import REPAIRS

README = Path(__file__).parents[1] / "README.md"


Row = tuple[str, ...]


def table(head: Row, rows: list[Row]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def option_table() -> str:
    rows: list[Row] = []
    for option in options.OPTIONS:
        default = option.shown_default or (f"`{str(option.default).lower()}`" if option.default not in ("", []) else "")
        if option.environment:
            default = " or ".join(f"`${name}`" for name in option.environment)
        rows.append((f"`{option.name}`", default or "none", option.help))
    return table(("option", "default", "meaning"), rows)


def endpoint_table() -> str:
    rows: list[Row] = [(f"`{', '.join(route.allow)}`", f"`{route.path}`", route.becomes) for route in routes.ROUTES]
    rows += [("any", f"`{path}*`", "LM Studio's own API; the model's name is mapped") for path in PREFIXES]
    return table(("method", "path", "becomes"), rows)


def mapping_table() -> str:
    rows: list[Row] = [(f"`{name}`", f"`{key}`") for name, key in OPTION_TO_LMSTUDIO]
    rows += [("`system`", "a system message, if there is none"), ("`format`, or beside `options`", "`response_format`")]
    return table(("Ollama's option", "for LM Studio"), rows)


def argument(parameter: inspect.Parameter) -> str:
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return "NAME=VALUE..."
    text = parameter.name.upper()
    return text if parameter.default is inspect.Parameter.empty else f"[{text}]"


def command_table() -> str:
    rows: list[Row] = []
    for attribute in vars(Commands).values():
        if name := getattr(attribute, "command_name", ""):
            parameters = list(inspect.signature(attribute).parameters.values())[1:]
            rows.append(
                (f"`{' '.join([name, *map(argument, parameters)])}`", " ".join((attribute.__doc__ or "").split()))
            )
    return table(("command", "what it does"), rows)


def repair_table() -> str:
    paths: dict[str, list[str]] = {}
    rows: dict[str, Row] = {}
    for path, repairs in REPAIRS.items():
        for repair in repairs:
            paths.setdefault(repair.name, []).append(f"`{path.removeprefix('/v1/')}`")
            rows[repair.name] = (repair.takes, f"{repair.flaw}s", repair.becomes)
    return table(
        ("on `/v1/`", "Ollama takes", "LM Studio", "so"),
        [(", ".join(paths[name]), *row) for name, row in rows.items()],
    )


TABLES = {
    "commands": command_table,
    "options": option_table,
    "endpoints": endpoint_table,
    "mapping": mapping_table,
    "repairs": repair_table,
}
PASSED = ", ".join(f"`{key}`" for key in sorted(OPENAI_KEYS))


def rendered(text: str) -> str:
    """Put the tables into the README's text."""
    for name, make in TABLES.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        assert mark, f"the README has no place for the table of {name}"
        text = before + mark + make() + rest[rest.index("<!-- end -->") :]
    return re.sub(r"(from `options` or beside it: )[^.]*\.", lambda match: f"{match[1]}{PASSED}.", text)


if __name__ == "__main__":
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
