"""The rows of the console's list."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from mitmproxy.test import tflow
from mitmproxy.tools.console import common

from ollama_lmstudio.internals.console_list import ConsoleList

COMMENT = '"Why is the sky blue?"  llama3.2  43.5 tok/s, first token 310 ms, 512 + 87 tokens'


@pytest.fixture
def console_list() -> Iterator[ConsoleList]:
    made = ConsoleList(
        lambda flow: "ours" in flow.metadata,
        lambda flow: "failed" in flow.metadata,
        lambda flow: str(flow.metadata.get("speed", "")),
        "! ",
    )
    made.install()
    yield made
    made.remove()


def flow_of(comment: str = COMMENT, **metadata: Any) -> Any:
    """Return a flow that is ours."""
    flow = tflow.tflow(resp=True)
    flow.comment = comment
    flow.metadata |= {"ours": True, **metadata}
    return flow


def shown(flow: Any, columns: int, mode: Any = common.RenderMode.TABLE) -> tuple[str, set[Any]]:
    """Return the first line of a row, and the styles in it."""
    canvas = common.format_flow(flow, render_mode=mode, focused=True).render((columns,))
    line = next(iter(canvas.content()))
    return b"".join(text for _, _, text in line).decode(), {style for style, _, _ in line}


@pytest.mark.parametrize("mode", [common.RenderMode.LIST, common.RenderMode.TABLE])
def test_a_row_shows_the_comment(console_list: ConsoleList, mode: Any) -> None:
    flow = flow_of(speed="43.5 tok/s")
    text, styles = shown(flow, 80, mode)
    assert text.startswith(">>")
    assert ' 200 "Why is the sky blue?"  llama3.2  43.5 ' in text
    assert text.rstrip().endswith(" 43.5 tok/s")
    assert "error" not in styles
    flow.metadata.pop("speed")
    assert re.search(r"512 \+ 87 tokens +3\.00s +$", shown(flow, 120, mode)[0])


def test_a_failure_is_red(console_list: ConsoleList) -> None:
    flow = flow_of("! 200 and more", failed=True)
    flow.marked = ":x:"
    text, styles = shown(flow, 80)
    # The status has a place of its own.
    assert " 200 and more" in text
    assert "200 200" not in text
    assert "error" in styles
    assert "❌" in text


def test_one_that_waits_for_the_user(console_list: ConsoleList) -> None:
    flow = flow_of()
    flow.response, flow.intercepted = None, True
    assert "intercept" in shown(flow, 80)[1]


def test_controls_are_not_shown(console_list: ConsoleList) -> None:
    text, _ = shown(flow_of("a\x1b[31m\nb"), 80)
    assert "a [31m b" in text


def test_other_rows_are_mitmproxys(console_list: ConsoleList) -> None:
    ours, theirs, new = flow_of(), tflow.tflow(resp=True), flow_of("")
    theirs.comment = COMMENT
    assert "Why" not in shown(theirs, 120)[0]
    assert "Why" not in shown(new, 120)[0]
    assert "Why" not in shown(ours, 120, common.RenderMode.DETAILVIEW)[0]
    console_list.remove()
    assert "Why" not in shown(ours, 120)[0]


def test_what_is_lost_without_it(monkeypatch: pytest.MonkeyPatch, console_list: ConsoleList) -> None:
    monkeypatch.delattr(common, "format_left_indicators")
    monkeypatch.setattr(console_list, "_original", lambda flow, **how: "as it was")
    assert common.format_flow(flow_of(), render_mode=common.RenderMode.TABLE) == "as it was"


def test_without_the_console_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, common.__name__)
    made = ConsoleList(bool, bool, str, "! ")
    made.install()
    made.remove()
    assert common.__name__ not in sys.modules
