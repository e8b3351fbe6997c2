"""The README says what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from mitmproxy import flowfilter, http
from mitmproxy.test import tflow

from ollama_lmstudio import cli, options
from ollama_lmstudio.inspect import summary
from ollama_lmstudio.record import record

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


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
    assert blocks[1].rstrip().endswith("pytest")


def flow_of(path: str, model: str, kind: str = "call", status: int = 200, done_reason: str = "stop") -> http.HTTPFlow:
    """Return a flow with its record and label."""
    flow = tflow.tflow(resp=True)
    flow.request.path = "/v1/chat/completions" if kind == "call" else path
    assert flow.response is not None
    flow.response.status_code = status
    numbers = record.Numbers(done_reason=done_reason)
    record.Record(kind=kind, method="POST", path=path, model=model, status=status, numbers=numbers).save(flow.metadata)  # type: ignore[arg-type]
    summary.label(flow)
    return flow


FLOWS = {
    "chat": flow_of("/api/chat", "llama3.2"),
    "generate": flow_of("/api/generate", "qwen3"),
    "refused": flow_of("/api/chat", "nope", "answer", 404, ""),
    "cut": flow_of("/api/chat", "qwen3", done_reason="length"),
    "own": flow_of("/api/v1/models", "", "own", done_reason=""),
}
FOUND = {
    "one endpoint": {"chat", "refused", "cut"},
    "one model, as clients call it": {"chat"},
    "chats": {"chat", "refused", "cut"},
    "what went wrong": {"refused"},
    "answers that were cut off or broke": {"cut"},
    "what the bridge asked on its own": {"own"},
    "all but that": {"chat", "generate", "refused", "cut"},
    # Before the rewrite all of /api/chat; that is tested with a real pause.
    "the client's request, as Ollama's API has it": {"refused"},
    "the call, as LM Studio's API has it": {"chat", "generate", "cut"},
    "the calls of one endpoint of Ollama's": {"generate"},
}


def rows(name: str) -> dict[str, str]:
    """Return the rows of one of the README's tables of filters."""
    table = README.partition(f"<!-- {name} -->")[2].partition("<!-- end -->")[0]
    return dict(re.findall(r"^\| (.+?) \| `(.+?)` \|$", table, re.MULTILINE))


@pytest.mark.parametrize(("what", "text"), (rows("filters") | rows("intercept")).items())
def test_filters_find_what_they_are_for(what: str, text: str) -> None:
    found = flowfilter.parse(text.replace(" & ~q", ""))
    assert found is not None
    assert {name for name, flow in FLOWS.items() if found(flow)} == FOUND[what]


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
