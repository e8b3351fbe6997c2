"""What a saved file tells of an answer: its numbers, its pauses, and when each event came."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.inspect.conftest import parts
from tests.wire.conftest import CHAT, HI, Proxy, StartProxy, models, read_flows
from tests.wire.web import mitmweb

from ollama_lmstudio.exchanges.exchange import WHOLE
from ollama_lmstudio.inspect import export, render_answer, render_lmstudio, summary
from ollama_lmstudio.inspect import snapshot as snapshots
from ollama_lmstudio.inspect.numbers import CUTS_SILENTLY
from ollama_lmstudio.inspect.snapshot import Snapshot
from ollama_lmstudio.lmstudio.sse import Decoder
from ollama_lmstudio.sim import Disconnect, MidError, Sim, SimModel, SimThread, content, end, reasoning, sleep

SMALL = "small-context"
CONTEXT = 400

Saved = Callable[[str], Snapshot]


@pytest.fixture
def lmstudio() -> Iterator[Sim]:
    small = SimModel(key=SMALL, default_context_length=CONTEXT)
    with SimThread(models=[*models(), small], overflow="cut") as sim:
        sim.settings.cached_tokens = 2
        yield sim


@pytest.fixture
def recording(tmp_path: Path, lmstudio: Sim, start_proxy: StartProxy) -> tuple[Proxy, Saved]:
    """A proxy that saves to a file, and the last exchange of a path in there once it has stopped."""
    path = tmp_path / "flows"
    proxy = start_proxy(lmstudio.url, "-w", str(path))
    # The look at LM Studio's models at the start is over.
    proxy.wait_for_log(r"\(\d+ models\)")

    def saved(endpoint: str) -> Snapshot:
        proxy.stop()
        found = [shown for flow in read_flows(path) if (shown := snapshots.of(flow)) and shown.client_path == endpoint]
        return found[-1]

    return proxy, saved


def load(proxy: Proxy, lmstudio: Sim, model: str = CHAT) -> None:
    """Load a model, and let the bridge look at the list of models: it never asks for one on account of a view."""
    lmstudio.load(model)
    with proxy.client() as client:
        client.get("/api/ps").raise_for_status()


def ask(proxy: Proxy, path: str = "/api/chat", **changed: object) -> None:
    with proxy.client() as client:
        client.post(path, json={"model": CHAT, "messages": HI, "stream": True, **changed})


def numbers(shown: Snapshot) -> dict[str, str]:
    """Return the lines of numbers in the view of a response."""
    lines = parts(render_answer.ollama_response(shown))["Numbers"].split("\n")
    return dict(line.split(": ", 1) for line in lines)


PAUSED = [reasoning("Hm"), content("It", " is"), sleep(1), content(" so"), sleep(0.3), content(".")]


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_the_pause_of_a_stream_and_when_each_event_came(
    recording: tuple[Proxy, Saved], lmstudio: Sim, path: str
) -> None:
    proxy, saved = recording
    load(proxy, lmstudio)
    lmstudio.script(PAUSED)
    ask(proxy, path)
    shown = saved(path)
    assert re.fullmatch(
        r"([89]\d\d ms|\d\.\d s), after 3 events, [\d.]+ m?s from the request", numbers(shown)["longest pause"]
    )
    seen = parts(render_lmstudio.lmstudio_response(shown))
    assert seen["The same in all events"].startswith("id: chatcmpl-")
    (title,) = [title for title in seen if title.startswith("Body: ")]
    assert re.search(r" events, [\d.]+ m?s to [1-9]\.\d s from the request$", title)
    rows = [re.split("  +", line.strip()) for line in seen[title].split("\n")[2:]]
    says = {row[-1]: row for row in rows}
    before, after, last = says['content " is"'], says['content " so"'], says['content "."']
    assert before[0] == "3"
    came = [float(row[1].replace(",", "")) for row in (before, after, last)]
    pauses = [float(row[2].replace(",", "")) for row in (after, last)]
    assert pauses == pytest.approx([came[1] - came[0], came[2] - came[1]], abs=1)
    assert pauses[0] >= 800
    assert came[1] >= 950
    assert "[DONE]" in says
    assert seen["As it came"] == shown.upstream.decode().replace("\n\n", "\n").strip()


def test_numbers_of_a_model_that_was_loaded(recording: tuple[Proxy, Saved], lmstudio: Sim) -> None:
    proxy, saved = recording
    load(proxy, lmstudio)
    lmstudio.fault(times=1, prefill=0.2, token_delay=0.02)
    ask(proxy)
    calls = [request.path for request in lmstudio.requests]
    seen = numbers(saved("/api/chat"))
    assert seen["context"] == "9 of 131,072 tokens"
    assert seen["prompt"] == "5 tokens, 2 of them from LM Studio's cache"
    assert re.fullmatch(r"[2-9]\d\d ms, \d+ tok/s", seen["reading the prompt"])
    assert seen["done reason"] == "stop"
    # The numbers are of what was known: no call is made for them.
    assert calls[-1] == "/v1/chat/completions"
    assert calls.count("/api/v1/models") == 2


def test_a_load_on_demand_is_not_told_apart_finer_than_it_was_seen(
    recording: tuple[Proxy, Saved], lmstudio: Sim
) -> None:
    proxy, saved = recording
    lmstudio.fault(times=1, cold_load=2.5, token_delay=0.02)
    ask(proxy)
    seen = numbers(saved("/api/chat"))
    assert re.fullmatch(r"about [2-9] s", seen["load"])
    assert "reading the prompt" not in seen
    assert re.fullmatch(r"[2-9]\.\d s", seen["first token"])


def test_a_conversation_that_lmstudio_has_cut(recording: tuple[Proxy, Saved], lmstudio: Sim) -> None:
    proxy, saved = recording
    load(proxy, lmstudio, SMALL)
    turns = [{"role": "user", "content": "word " * 100}, {"role": "assistant", "content": "word " * 100}]
    ask(proxy, model=SMALL, messages=[*turns * 10, *HI])
    shown = saved("/api/chat")
    seen = numbers(shown)
    assert re.fullmatch(r"of 2,001 words LM Studio has read \d+ tokens: it has cut the conversation", seen["cut"])
    assert seen["context"].startswith(("3", "4"))
    assert "cut of 2,001 words LM Studio has read" in export.markdown(shown)


def test_a_context_that_is_full(recording: tuple[Proxy, Saved], lmstudio: Sim) -> None:
    proxy, saved = recording
    load(proxy, lmstudio, SMALL)
    # The stand-in repeats what was said, for which there is no room.
    ask(proxy, model=SMALL, messages=[{"role": "user", "content": "word " * 250}])
    seen = numbers(saved("/api/chat"))
    assert re.fullmatch(r"(399|400) of 400 tokens, it is full", seen["context"])
    assert seen["warning"] == CUTS_SILENTLY
    assert seen["done reason"] == "length: cut off, since the context is full"


def test_an_answer_that_was_cut_off_by_its_request(recording: tuple[Proxy, Saved], lmstudio: Sim) -> None:
    proxy, saved = recording
    lmstudio.script([content(*[" word"] * 50)])
    ask(proxy, options={"num_predict": 7})
    assert numbers(saved("/api/chat"))["done reason"] == ("length: cut off at the request's limit of 7 tokens")


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_an_error_in_a_stream_stands_first(recording: tuple[Proxy, Saved], lmstudio: Sim, path: str) -> None:
    proxy, saved = recording
    lmstudio.fault(times=1, token_delay=0.02, mid_error=MidError(after=2, message="the engine is gone"))
    ask(proxy, path)
    shown = saved(path)
    view = parts(render_answer.ollama_response(shown))
    assert list(view)[:2] == ["Error", "Answer up to the error: 200 OK"]
    assert view["Error"] == "error: the engine is gone"
    raw = render_lmstudio.lmstudio_response(shown)
    assert raw.startswith("━━ Error ")
    assert re.search(r"\n +3 +[\d.]+ +(\+[\d.]+)?  error  .*the engine is gone", raw)


def test_a_stall_before_a_stream_broke_is_its_longest_pause(recording: tuple[Proxy, Saved], lmstudio: Sim) -> None:
    proxy, saved = recording
    lmstudio.script([content("It", " is"), sleep(0.2), content(" so"), sleep(1)], times=1)
    lmstudio.fault(times=1, disconnect=Disconnect(after=4))
    ask(proxy)
    shown = saved("/api/chat")
    assert shown.error
    pause = numbers(shown)["longest pause"]
    assert re.fullmatch(r"(\d\.\d s|9\d\d ms), after 3 events, [\d.]+ m?s from the request", pause)


def test_a_file_that_was_saved_before_there_were_times(recording: tuple[Proxy, Saved], lmstudio: Sim) -> None:
    proxy, saved = recording
    lmstudio.script([end("stop")])
    ask(proxy)
    shown = saved("/api/chat")
    shown.record.arrivals = b""
    assert "\n  event  says\n" in render_lmstudio.lmstudio_response(shown)


STREAMS_PASSED_ON: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 50},
    "/v1/responses": {"input": "hi"},
    "/api/v1/chat": {"input": "hi"},
}
BROKEN = "LM Studio closed the connection before its answer was finished"


@pytest.fixture(scope="module")
def shared_recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Sim, Saved]]:
    """A mitmweb that tests share, and the last exchange of a path in what it saves, once that has ended."""
    path = tmp_path_factory.mktemp("saved") / "flows"
    with (
        SimThread(models=models()) as sim,
        mitmweb(sim.url, state_dir=path.parent) as (proxy, web),
    ):

        def ended(endpoint: str) -> list[Snapshot]:
            path.write_bytes(web.http.get("/flows/dump").raise_for_status().content)
            flows = [flow for flow in read_flows(path) if flow.error or (flow.response and flow.response.timestamp_end)]
            return [shown for flow in flows if (shown := snapshots.of(flow)) and shown.client_path == endpoint]

        def saved(endpoint: str) -> Snapshot:
            proxy.wait_for(lambda: ended(endpoint))
            found = ended(endpoint)[-1]
            web.http.post("/clear").raise_for_status()
            return found

        yield proxy, sim, saved


@pytest.mark.parametrize("how", ["fin", "rst", "mid_line"])
@pytest.mark.parametrize("path", STREAMS_PASSED_ON)
def test_a_stream_of_lm_studios_own_apis_that_breaks_says_so_to_the_client_and_in_the_list(
    shared_recording: tuple[Proxy, Sim, Saved], path: str, how: Any
) -> None:
    proxy, lmstudio, saved = shared_recording
    lmstudio.fault(times=1, disconnect=Disconnect(after=2, how=how))
    answer = httpx.post(
        f"{proxy.url}{path}", json={"model": CHAT, "stream": True, **STREAMS_PASSED_ON[path]}, trust_env=False
    )
    last = [*Decoder(len(answer.content)).feed(answer.content)][-1]
    assert last.type == "error"
    assert BROKEN in last.data
    shown = saved(path)
    assert shown.error == BROKEN
    assert summary.comment(shown).startswith(f"{summary.CROSS}{BROKEN}"[:60])


@pytest.mark.parametrize("path", ["/api/chat", *STREAMS_PASSED_ON])
def test_a_whole_answer_without_an_end_has_no_error_for_the_client(
    shared_recording: tuple[Proxy, Sim, Saved], path: str
) -> None:
    proxy, lmstudio, saved = shared_recording
    body = STREAMS_PASSED_ON.get(path, STREAMS_PASSED_ON["/v1/chat/completions"])
    lmstudio.fault(times=1, disconnect=Disconnect(how="no_last_chunk"))
    answer = httpx.post(f"{proxy.url}{path}", json={"model": CHAT, "stream": True, **body}, trust_env=False)
    assert b"event: error" not in answer.content
    assert saved(path).error == WHOLE
