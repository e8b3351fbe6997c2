"""The contentviews as mitmproxy's tools choose and call them, on the line that is installed."""

from __future__ import annotations

import importlib
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from mitmproxy import contentviews, http, io
from mitmproxy.test import taddons, tflow
from tests.inspect.conftest import (
    ASKED,
    EVENTS,
    LINES,
    SECRET,
    answered,
    dumps,
    flow_of,
    line,
    ndjson,
    record,
    rule,
    said,
    snapshot,
)
from tests.inspect.test_render import internal_call
from tests.wire.conftest import free_port

from ollama_lmstudio.inspect import render, render_answer, render_lmstudio, views
from ollama_lmstudio.inspect import snapshot as snapshots
from ollama_lmstudio.inspect.snapshot import Snapshot
from ollama_lmstudio.internals import interface, web_page
from ollama_lmstudio.record.record import UNFINISHED, Record

IS_NEW = hasattr(contentviews, "Contentview")
API: Any = contentviews
VIEWS = views.Views()
# The addon does not use it.
LOADER: Any = None


class Shown(NamedTuple):
    """What a tool shows: the view's name, and its text."""

    view: str
    text: str


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    # On mitmproxy 11 the context leaves a loop open, and nothing here needs it.
    with taddons.context() if IS_NEW else nullcontext():
        VIEWS.load(LOADER)
        yield
        VIEWS.done()


def show(flow: http.HTTPFlow, message: Any, name: str = "auto") -> Shown:
    """Ask for a view as mitmdump, mitmproxy and mitmweb do; a view that fails is a failure here."""
    if IS_NEW:
        result = API.prettify_message(message, flow, name)
        assert result.syntax_highlight != "error"
        return Shown(result.view_name, result.text)
    view, lines, error = API.get_message_content_view(name, message, flow)
    assert error is None
    return Shown(view, _joined(lines))


def _joined(lines: Any) -> str:
    """Return the text of mitmproxy 11's lines, where a line break stands for an empty one in mitmweb."""
    texts = ("".join(text for _, text in line) for line in lines)
    return "\n".join("" if text == "\n" else text for text in texts)


def names() -> list[str]:
    """Return the names of all views that mitmproxy has."""
    return list(API.registry) if IS_NEW else [view.name.lower() for view in API.views]


def relay(path: str, response: bytes = EVENTS, content_type: str = "text/event-stream") -> Snapshot:
    """Return the snapshot of a request that was passed through."""
    kept = Record(kind="relay", method="POST", path=path, request=dumps({"model": "m"}))
    whole = snapshot(kept, call={"model": "org/m"}, response=response, content_type=content_type)
    return replace(whole, path=path)


OLLAMA, LM_STUDIO = "Ollama", "LM Studio"

CHOSEN: dict[str, tuple[Snapshot, str]] = {
    "a call": (snapshot(), OLLAMA),
    "a call that failed": (snapshot(record(error="gone"), response=b'{"error":"gone"}', status=502), OLLAMA),
    "an answer": (answered("/api/tags", {"models": []}), OLLAMA),
    "an answer that is no JSON": (answered("/", b"Ollama is running"), OLLAMA),
    "what is served": (
        snapshot(Record(kind="served", method="POST", path="/api/pull"), response=b'{"status":"success"}\n'),
        OLLAMA,
    ),
    "a chat that was sent on": (relay("/v1/chat/completions"), OLLAMA),
    "messages that were sent on": (relay("/v1/messages"), OLLAMA),
    "LM Studio's own chat": (relay("/api/v1/chat"), OLLAMA),
    "a list that was sent on": (relay("/v1/models", b'{"data":[]}', "application/json"), LM_STUDIO),
    "a load that was sent on": (relay("/api/v1/models/load", b"{}", "application/json"), LM_STUDIO),
    "an internal call": (internal_call(), LM_STUDIO),
}


@pytest.mark.parametrize(("case", "view"), CHOSEN.values(), ids=CHOSEN)
def test_which_view_is_chosen(case: Snapshot, view: str) -> None:
    flow = flow_of(case)
    for message in (flow.request, flow.response):
        assert show(flow, message).view == view


def test_a_request_without_an_answer_is_shown_too() -> None:
    flow = flow_of(snapshot(record(numbers=None), status=0, response=None))
    shown = show(flow, flow.request)
    assert shown.view == OLLAMA
    assert f"━━ {render.ANSWER_TO_COME} " in shown.text


@pytest.mark.parametrize("case", [row[0] for row in CHOSEN.values()], ids=CHOSEN)
def test_both_can_be_chosen_by_hand(case: Snapshot) -> None:
    flow = flow_of(case)
    expected = {
        (OLLAMA, flow.request): render.ollama_request,
        (OLLAMA, flow.response): render_answer.ollama_response,
        (LM_STUDIO, flow.request): render_lmstudio.lmstudio_request,
        (LM_STUDIO, flow.response): render_lmstudio.lmstudio_response,
    }
    for (name, message), view in expected.items():
        assert show(flow, message, name) == (name, view(case))


def test_lm_studios_side_can_be_shown_first() -> None:
    flow, list_ = flow_of(snapshot()), flow_of(CHOSEN["a list that was sent on"][0])
    try:
        assert views.FIRST.swap().startswith("LM Studio's side of exchanges is shown first now")
        assert show(flow, flow.response).view == show(flow, flow.request).view == LM_STUDIO
        assert show(list_, list_.response).view == LM_STUDIO
        assert show(flow, flow.response, OLLAMA).view == OLLAMA
    finally:
        assert views.FIRST.swap().startswith("Ollama's side of exchanges is shown first now")
    assert show(flow, flow.response).view == OLLAMA
    assert show(list_, list_.response).view == LM_STUDIO


def test_both_come_first_in_the_menu() -> None:
    shown = API.registry.available_views() if IS_NEW else names()
    assert shown[:3] == ["auto", "ollama", "lm studio"]


def test_what_is_shown_while_an_answer_comes_is_not_what_is_shown_at_its_end() -> None:
    """mitmproxy's tools render a body again when its bytes have changed: here they have, and nothing is to be seen."""
    whole = snapshot(record(numbers=None, response_size=0), response=LINES)
    flow = flow_of(whole)
    assert flow.response is not None
    flow.response.timestamp_end = None
    flow.response.raw_content = LINES + UNFINISHED
    seen = snapshots.of(flow)
    assert seen is not None
    assert (seen.is_in_progress, seen.response) == (True, LINES)


@pytest.mark.parametrize("name", ["auto", OLLAMA, LM_STUDIO])
def test_a_foreign_flow(name: str) -> None:
    flow = tflow.tflow(resp=True)
    assert flow.response is not None
    flow.response.headers["content-type"] = "application/json"
    flow.response.content = b'{"a":1}'
    shown = show(flow, flow.response, name)
    assert shown.view == ("JSON" if name == "auto" else name)
    assert (
        name == "auto"
        or shown.text
        == rule("This is no exchange of the bridge between Ollama's API and LM Studio") + '\nbody: {"a":1}'
    )


def test_messages_that_are_not_the_flows_own_are_left_to_others() -> None:
    flow, other = flow_of(snapshot()), tflow.tflow(resp=True)
    assert show(flow, other.response).view not in (OLLAMA, LM_STUDIO)
    socket = tflow.twebsocketflow()
    record().save(socket.metadata)
    assert socket.websocket is not None
    assert show(socket, socket.websocket.messages[0]).view not in (OLLAMA, LM_STUDIO)


@pytest.mark.parametrize("name", ["auto", OLLAMA, LM_STUDIO])
def test_secrets_are_masked(name: str) -> None:
    kept = record(
        headers=(("Authorization", f"Bearer {SECRET}"), ("User-Agent", "curl")),
        upstream_headers=(("set-cookie", SECRET), ("Content-Type", "text/event-stream")),
    )
    flow = flow_of(snapshot(kept))
    assert flow.response is not None
    flow.request.headers["Authorization"] = f"Bearer {SECRET}"
    flow.request.headers["X-Loopback-Secret"] = flow.response.headers["Set-Cookie"] = SECRET
    for message in (flow.request, flow.response):
        assert SECRET not in show(flow, message, name).text


def test_a_view_that_fails_shows_the_body() -> None:
    def broken(_: Snapshot) -> str:
        raise RuntimeError("never mind")

    side = replace(views.OLLAMA, response=broken)
    flow = flow_of(snapshot())
    assert views.text(side, LINES, flow, flow.response) == (
        rule("The view Ollama failed (RuntimeError), this is the body as it is") + "\n" + said("body", LINES.decode())
    )


@pytest.mark.skipif(not IS_NEW, reason="mitmproxy 11 highlights nothing by itself")
def test_mitmproxy_12_highlights_the_views_and_all_others_as_ever() -> None:
    highlight = importlib.import_module("mitmproxy_rs.syntax_highlight")
    flow = flow_of(snapshot())
    shown = API.prettify_message(flow.response, flow, "ollama")
    assert shown.syntax_highlight == "none"
    parts = highlight.highlight(shown.text, language=shown.syntax_highlight)
    assert ("boolean", rule("Answer: 200 OK")) in parts
    assert "".join(text for _, text in parts) == shown.text
    assert highlight.highlight("a: b", "yaml") == [("name", "a"), ("", ": "), ("string", "b")]
    VIEWS.done()
    assert highlight.highlight(shown.text, shown.syntax_highlight) == [("", shown.text)]


def test_tabs_are_expanded_in_the_console_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = flow_of(snapshot(response=ndjson(line("a\tb"), line(done=True))))
    assert "assistant: a\tb" in views.text(views.OLLAMA, b"", flow, flow.response)
    monkeypatch.setattr(interface, "is_console", lambda: True)
    assert "assistant: a    b" in views.text(views.OLLAMA, b"", flow, flow.response)


def test_nothing_that_a_flow_holds_keeps_other_views_from_being_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> Snapshot:
        raise RuntimeError("never mind")

    flow = flow_of(snapshot())
    assert flow.response is not None
    flow.response.headers["content-type"] = "application/json"
    flow.response.content = b"{}"
    monkeypatch.setattr("ollama_lmstudio.inspect.snapshot.of", broken)
    assert show(flow, flow.response).view == "JSON"


@pytest.mark.parametrize("body", [b'{"messages":' + b'[{"a":' * 450, b"[" * 90_000, b'{"error":' * 300, b"\x00\xff"])
@pytest.mark.parametrize("name", [OLLAMA, LM_STUDIO])
def test_what_is_nested_deeply_or_no_text_at_all(body: bytes, name: str) -> None:
    kept = record(body, upstream=body, upstream_headers=())
    flow = flow_of(snapshot(kept, call=body, response=body))
    for message in (flow.request, flow.response):
        assert "failed (" not in show(flow, message, name).text


def test_a_body_that_cannot_be_decoded() -> None:
    flow = flow_of(snapshot())
    assert flow.response is not None
    flow.response.headers["content-encoding"] = "gzip"
    assert "It is a dot." in show(flow, flow.response).text


def test_installed_again_and_removed() -> None:
    VIEWS.load(LOADER)
    assert names().count("ollama") == names().count("lm studio") == 1
    VIEWS.done()
    assert not {"ollama", "lm studio"} & set(names())
    VIEWS.done()
    flow = flow_of(snapshot())
    assert show(flow, flow.response).view != OLLAMA


def test_rules_and_keys_have_styles_on_mitmproxy_11(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "is_web", lambda: False)
    shown = [
        rule("Answer"),
        "model: m",
        "  a: b",
        '{"a": 1',
        "data: {}",
        "",
        *said("user", "a: b\n\n# c").split("\n"),
        "b: c",
        "- d",
        "+ e: f",
    ]
    styles = list(views._styled("\n".join(shown)))
    assert "\n".join("".join(text for _, text in line) for line in styles) == "\n".join(shown)
    assert [[style for style, _ in line] for line in styles] == [
        ["header", "text"],
        ["Token_Name_Tag", "text"],
        ["text"],
        ["text"],
        ["Token_Name_Tag", "text"],
        ["text"],
        ["Token_Name_Tag", "text"],
        ["text"],
        ["text"],
        ["text"],
        ["Token_Name_Tag", "text"],
        ["Token_Name_Tag", "text"],
        ["Token_Literal_String", "text"],
        ["Token_Name_Tag", "text"],
    ]
    # mitmproxy 12 is told where its highlighting asks.
    tagged = [(tag, text) for tag, text in views._tagged("\n".join(shown)) if text]
    assert "".join(text for _, text in tagged) == "\n".join(shown)
    assert [(tag, text) for tag, text in tagged if tag] == [
        ("boolean", shown[0]),
        ("name", "model:"),
        ("name", "data:"),
        ("name", shown[6]),
        ("name", shown[10]),
        ("name", "b:"),
        ("error", "- d"),
        ("name", "+ e: f"),
    ]
    # In mitmweb an empty line has a height, and is copied, only if it has a line break.
    monkeypatch.setattr(interface, "is_web", lambda: True)
    assert list(views._styled("━━ a ━━\n\n"))[1:] == [[("text", "\n")], [("text", "\n")]]


SCRIPT = """
from ollama_lmstudio.inspect import views
addons = [views.Views()]
"""


def test_mitmweb_shows_both(tmp_path: Path) -> None:
    """A real mitmweb, asked in the way its page asks it."""
    flow = flow_of(snapshot())
    with (tmp_path / "flows").open("wb") as file:
        io.FlowWriter(file).add(flow)
    (tmp_path / "script.py").write_text(SCRIPT)
    port, password = free_port(), secrets.token_hex(8)
    arguments = [
        "-r",
        tmp_path / "flows",
        "-s",
        tmp_path / "script.py",
        "-n",
        "--web-port",
        port,
        "--no-web-open-browser",
    ]
    arguments += ["--set", f"web_password={password}"]
    with subprocess.Popen(
        [Path(sys.executable).parent / "mitmweb", *map(str, arguments)], stdout=subprocess.DEVNULL
    ) as web:
        try:
            headers = {"Authorization": f"Bearer {password}"}
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=20
            ) as client:
                _wait_for(lambda: client.get("/flows").json())
                # Its page wraps lines, and is whole: no other answer is changed.
                page = client.get("/").raise_for_status()
                assert f"<style>{web_page.CSS.decode()}</style></head>" in page.text
                assert page.text.rstrip().endswith("</html>")
                for view, side in (("Auto", views.OLLAMA), ("Ollama", views.OLLAMA), ("LM Studio", views.LM_STUDIO)):
                    for part, expected in (("request", side.request), ("response", side.response)):
                        answer = client.get(f"/flows/{flow.id}/{part}/content/{view}.json").raise_for_status().json()
                        assert _text(answer) == expected(snapshot())
                        assert answer.get("view_name", answer["description"]) == side.name
                assert (
                    len(_text(client.get(f"/flows/{flow.id}/request/content/Auto.json?lines=5").json()).split("\n")) < 8
                )
        finally:
            web.terminate()


def _wait_for(condition: Any) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end
        time.sleep(0.1)


def _text(answer: Any) -> str:
    """Return the text of mitmweb's response: one text on mitmproxy 12, lines of pieces on 11."""
    if "text" in answer:
        return str(answer["text"])
    return _joined(answer["lines"])


def test_asked_for_is_what_is_kept() -> None:
    """The whole way from a flow that was saved and read again."""
    flow = flow_of(snapshot())
    copy: Any = http.HTTPFlow.from_state(flow.get_state())
    assert show(copy, copy.request) == show(flow, flow.request)
    assert ASKED["messages"][0]["content"] in show(copy, copy.request).text
