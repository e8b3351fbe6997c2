"""The README says what the code does."""

from __future__ import annotations

import importlib.util
import re
import time
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import flowfilter, http
from mitmproxy.test import tflow
from mitmproxy.tools import web

from ollama_lmstudio import cli, options
from ollama_lmstudio.inspect import summary
from ollama_lmstudio.record import record

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_code() -> None:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tests" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    assert readme.rendered(README) == README, "run python tests/readme.py"


def test_two_commands_come_first() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert "ollama-lmstudio-proxy --demo" in blocks[0]
    # The tests of a file share processes, so that a worker takes whole files.
    assert blocks[1].rstrip().endswith("/pytest -n auto --dist loadfile")


def flow_of(
    path: str, model: str, kind: str = "call", status: int = 200, done_reason: str = "stop", **kept: Any
) -> http.HTTPFlow:
    """Return a flow with its record and label."""
    flow = tflow.tflow(resp=True)
    flow.request.content = f'{{"prompt": "{kept.get("prompt")} today"}}'.encode()
    flow.request.path = "/v1/chat/completions" if kind == "call" else path
    assert flow.response is not None
    flow.response.status_code = status
    numbers = record.Numbers(done_reason=done_reason)
    record.Record(
        kind=kind,  # type: ignore[arg-type]
        method="POST",
        path=path,
        model=model,
        status=status,
        numbers=numbers,
        **kept,
    ).save(flow.metadata)
    summary.label(flow)
    return flow


NOON = time.mktime((2026, 11, 28, 16, 0, 0, 0, 0, -1))
HOUR = 3600
CALLS = {"chat", "broken", "left", "cut"}
FLOWS = {
    "chat": flow_of("/api/chat", "llama3.2", prompt="Say why the sky is blue", at=record.local_time(NOON)),
    "generate": flow_of("/api/generate", "qwen3", prompt="Why?", at=record.local_time(NOON + HOUR)),
    "refused": flow_of("/api/chat", "nope", "answer", 404, ""),
    "broken": flow_of("/api/chat", "qwen3", prompt="Why?", error="The model has crashed"),
    "left": flow_of("/api/chat", "qwen3", prompt="Why?", error="Client disconnected."),
    "cut": flow_of("/api/chat", "qwen3", done_reason="length"),
    "own": flow_of("/api/v1/models", "", "own", done_reason=""),
}
FLOWS["chat"].metadata["ollama_conversation"] = FLOWS["refused"].metadata["ollama_conversation"] = "3f2a9c1e"
FLOWS["key"] = flow_of("/v1/embeddings", "bge", "relay", key="alice")
FLOWS["generate"].metadata["ollama_conversation"] = "77777777"
FOUND = {
    "one endpoint": CALLS | {"refused"},
    "one model, as clients call it": {"chat"},
    "what models were asked": {"chat", "generate", "refused", "broken", "left"},
    "a prompt, by its first words": {"chat"},
    "a text in a request or an answer": {"chat"},
    "one hour of a day": {"chat"},
    "what went wrong": {"refused", "broken"},
    "answers that were cut off, by a limit or by who asked": {"cut", "left"},
    "what the bridge asked on its own": {"own"},
    "all but that": set(FLOWS) - {"own"},
    "one conversation (`ollama.conversation` says its id)": {"chat", "refused"},
    "what was asked with one of the named keys": {"key"},
    "the same, where there is no `~meta`": {"key"},
    # Before the rewrite all of /api/chat; that is tested with a real pause.
    "the client's request, as Ollama's API has it": {"refused"},
    "the call, as LM Studio's API has it": CALLS | {"generate"},
    "the calls of one endpoint of Ollama's": {"generate"},
}


def rows(name: str) -> dict[str, str]:
    """Return the rows of one of the README's tables of filters."""
    table = README.partition(f"<!-- {name} -->")[2].partition("<!-- end -->")[0]
    return dict(re.findall(r"^\| (.+?) \| `(.+?)` \|", table, re.MULTILINE))


@pytest.mark.parametrize(("what", "text"), (rows("filters") | rows("intercept")).items())
def test_filters_find_what_they_are_for(what: str, text: str) -> None:
    found = flowfilter.parse(text.replace(" & ~q", ""))
    assert found is not None
    assert {name for name, flow in FLOWS.items() if found(flow)} == FOUND[what]


def test_what_the_search_of_mitmweb_knows() -> None:
    """Its page parses filters itself, and has no `~meta`: the file is mitmproxy's."""
    static = Path(web.__file__).parent / "static"
    script = next(path for pattern in ("app.js", "index*.js") for path in static.glob(pattern))
    known = set(re.findall(r'"(~[a-z]+)"', script.read_text(encoding="utf-8")))
    assert "~comment" in known
    table = README.partition("<!-- filters -->")[2].partition("<!-- end -->")[0]
    for text, said in re.findall(r"^\| .+? \| `(.+?)` \| (.+?) \|$", table, re.MULTILINE):
        if said in ("yes", "no"):
            assert (set(re.findall(r"~[a-z]+", text)) <= known) is (said == "yes"), text


def test_every_filter_is_tested() -> None:
    assert set(rows("filters") | rows("intercept")) == set(FOUND)


def test_every_option_is_explained_by_the_tool(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.command(["--help"], {})
    said = capsys.readouterr().out
    assert [option.name for option in options.OPTIONS if f"--{option.name.replace('_', '-')}" not in said] == []


def test_the_files_of_each_step_are_there() -> None:
    section = README.partition("## How it is built")[2].partition("\n## ")[0]
    rows = section.partition("<!-- rooms -->")[2].partition("<!-- end -->")[0]
    files = re.findall(r"`([\w/]+\.py)`", rows)
    assert len(files) > 15
    for file in re.findall(r"`([\w/]+\.py)`", section):
        base = ROOT if file.startswith("tests/") else ROOT / "addon" / "ollama_lmstudio"
        assert (base / file).is_file(), file
