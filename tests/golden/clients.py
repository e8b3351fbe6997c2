"""Requests as real clients sent them, recorded by a server that was no more than that."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).with_name("client_requests.jsonl")


@dataclass(frozen=True)
class ClientRequest:
    """One request; `json` is None where the body is none."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    json: Any

    @property
    def client(self) -> str:
        """What the client calls itself."""
        return next((text for name, text in self.headers.items() if name.lower() == "user-agent"), "codex")

    @property
    def raw(self) -> bytes:
        """The request as it goes over the wire."""
        headers = {"Host": "localhost:11434", **self.headers}
        if self.body or self.method == "POST":
            headers["Content-Length"] = str(len(self.body))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{self.method} {self.path} HTTP/1.1\r\n{head}\r\n".encode() + self.body

    def __str__(self) -> str:
        return f"{self.number} {self.client.partition(' ')[0]} {self.path} {self.body[:80].decode()}"


def client_requests() -> list[ClientRequest]:
    """Read the recorded requests."""
    requests = []
    for number, line in enumerate(RECORDED.read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        value = row["body"]
        # Text is what no client sends as JSON: it is the body itself.
        is_json = value is not None and not isinstance(value, str)
        body = json.dumps(value, separators=(",", ":")) if is_json else value or ""
        requests.append(
            ClientRequest(number, row["method"], row["path"], row["headers"], body.encode(), value if is_json else None)
        )
    return requests
