"""Responses with data, not a model's answer: model lists, descriptions, embeddings, progress; as lines of text."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from ..units import size
from . import jsontext
from .answers import Progress

# Limits of what is shown: models, embeddings, numbers of each, and the width of a column.
MAX_ROWS = 200
MAX_VECTORS = 20
FIRST_VALUES = 5
CELL_CHARACTERS = 60
FLOAT_BYTES = 4

Entry = Mapping[str, Any]


def vectors(data: object) -> list[Any] | None:
    """Return the embeddings in a response, of Ollama or OpenAI's API; None if it has none."""
    if not isinstance(data, dict):
        return None
    several, one, rows = data.get("embeddings"), data.get("embedding"), data.get("data")
    if isinstance(several, list):
        return several
    if isinstance(one, list):
        return [one]
    if isinstance(rows, list) and rows and all(isinstance(row, dict) and "embedding" in row for row in rows):
        return [row["embedding"] for row in rows]
    return None


def embeddings(found: Sequence[Any]) -> list[str]:
    """Return a line for each embedding: its dimensions, its norm and its first values."""
    lines = [_embedding(vector) for vector in islice(found, MAX_VECTORS)]
    if len(found) > MAX_VECTORS:
        lines.append(f"and {len(found) - MAX_VECTORS:,} more")
    return lines


def _decoded(vector: object) -> object:
    """Return the numbers of an embedding in OpenAI's base64 (32 bit floats); other values as they are."""
    try:
        data = base64.b64decode(vector, validate=True) if isinstance(vector, str) else b""
    except ValueError:
        return vector
    count, rest = divmod(len(data), FLOAT_BYTES)
    return list(struct.unpack(f"<{count}f", data)) if data and not rest else vector


def _embedding(vector: object) -> str:
    vector = _decoded(vector)
    if not isinstance(vector, list) or not all(isinstance(x, int | float) for x in vector):
        return jsontext.one_line(jsontext.without_base64(jsontext.compact(vector)), CELL_CHARACTERS)
    try:
        norm = f"norm {math.hypot(*vector):.4f}"
    except OverflowError:
        norm = "norm too large to be told"
    values = ", ".join(f"{x:.4g}" if isinstance(x, float) else str(x) for x in vector[:FIRST_VALUES])
    return f"{len(vector):,} dimensions, {norm}: {values}{', ...' if len(vector) > FIRST_VALUES else ''}"


def _at(entry: Entry, *keys: str) -> Any:
    value: Any = entry
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _string(value: object) -> str:
    return "" if value is None or isinstance(value, dict | list) else str(value)


def _size(value: object) -> str:
    return size(value) if isinstance(value, int) and value > 0 else ""


def _name(entry: Entry) -> str:
    return next((_string(entry[key]) for key in ("name", "key", "id", "model") if entry.get(key)), "?")


def _quantization(entry: Entry) -> str:
    given = _at(entry, "details", "quantization_level") or _at(entry, "quantization", "name")
    return _string(given or entry.get("quantization"))


def _abilities(entry: Entry) -> str:
    """Return a model's capabilities, given as a list (Ollama) or an object of booleans (LM Studio)."""
    given = entry.get("capabilities")
    if isinstance(given, dict):
        return " ".join(str(name) for name, value in given.items() if value)
    return " ".join(map(str, given)) if isinstance(given, list) else ""


def _loaded(entry: Entry) -> str:
    instances = entry.get("loaded_instances")
    if not isinstance(instances, list):
        return _string(entry.get("state"))
    return " ".join(_string(instance.get("id")) for instance in instances if isinstance(instance, dict))


def _context(entry: Entry) -> str:
    length = entry.get("context_length") or _at(entry, "details", "context_length")
    return _string(length or entry.get("loaded_context_length") or entry.get("max_context_length"))


# The columns of a model list; a column that is empty in all rows is left out.
COLUMNS: Sequence[tuple[str, Callable[[Entry], str]]] = (
    ("name", _name),
    ("type", lambda entry: _string(entry.get("type"))),
    ("size", lambda entry: _size(entry.get("size", entry.get("size_bytes")))),
    ("parameters", lambda entry: _string(_at(entry, "details", "parameter_size") or entry.get("params_string"))),
    ("quantization", _quantization),
    ("context", _context),
    ("loaded", _loaded),
    ("expires", lambda entry: _string(entry.get("expires_at"))),
    ("can", _abilities),
)


def table(entries: Sequence[Entry]) -> list[str]:
    """Return a model list as lines with aligned columns."""
    if not entries:
        return ["none"]
    cells = [
        [jsontext.one_line(column(entry), CELL_CHARACTERS) for _, column in COLUMNS]
        for entry in islice(entries, MAX_ROWS)
    ]
    shown = [index for index in range(len(COLUMNS)) if any(row[index] for row in cells)]
    rows = [[COLUMNS[index][0] for index in shown], *([row[index] for index in shown] for row in cells)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(shown))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(entries) > MAX_ROWS:
        lines.append(f"and {len(entries) - MAX_ROWS:,} more")
    return lines


def is_description(data: object) -> bool:
    """Return whether a response describes one model, as that of /api/show does."""
    return isinstance(data, dict) and ("model_info" in data or "modelfile" in data)


def progress_lines(progress: Sequence[Progress]) -> list[str]:
    """Return a line for each status of a pull or create."""
    return list(map(_progress_line, progress))


def _progress_line(progress: Progress) -> str:
    text = jsontext.one_line(progress.status, CELL_CHARACTERS)
    if progress.total:
        percent = 100 * progress.completed // progress.total
        text += f": {percent}%, {size(progress.completed)} of {size(progress.total)}"
    return text + (f" ({progress.lines:,} lines)" if progress.lines > 1 else "")
