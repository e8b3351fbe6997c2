"""The exchanges of one conversation as one thread."""

from __future__ import annotations

import time

import pytest
from mitmproxy import http
from tests.inspect.conftest import dumps, flow_of, record, snapshot

from ollama_lmstudio.inspect import thread
from ollama_lmstudio.inspect.thread import Thread


def exchanges(count: int, words: int = 1) -> list[http.HTTPFlow]:
    """Make the exchanges of a conversation, in which each request has all that was said before."""
    said, flows = [], []
    for number in range(count):
        said.append({"role": "user", "content": f"question {number} {'word ' * words}"})
        kept = record({"model": "m", "messages": said}, conversation="ab12")
        flow = flow_of(snapshot(kept, response=dumps({"message": {"content": f"answer {number}"}, "done": True})))
        flow.request.timestamp_start = number
        flows.append(flow)
        said.append({"role": "assistant", "content": f"answer {number}"})
    return flows


def test_each_exchange_tells_what_is_new_in_it() -> None:
    flows = exchanges(3)
    found = thread.find(flows[2:], flows)
    assert found is not None
    lines = thread.lines(found)
    assert [line for line in lines if line.startswith(("user", "assistant"))] == [
        line for number in range(3) for line in (f"user: question {number} word ", f"assistant: answer {number}")
    ]
    assert not [line for line in lines if "left out" in line]


@pytest.mark.parametrize(("limit", "shown"), [("MAX_EXCHANGES", 4), ("MAX_BYTES", 1)])
def test_the_newest_of_a_long_conversation_are_shown(monkeypatch: pytest.MonkeyPatch, limit: str, shown: int) -> None:
    monkeypatch.setattr(thread, limit, shown)
    lines = thread.lines(Thread("ab12", exchanges(5)))
    assert sum(line.startswith("user: ") for line in lines) == shown
    assert any("answer 4" in line for line in lines)
    count = 5 - shown
    assert any(f" {count} earlier exchange{' is' if count == 1 else 's are'} left out " in line for line in lines)


def test_a_conversation_of_many_megabytes_is_no_long_wait() -> None:
    found = Thread("ab12", exchanges(150, words=2000))
    began = time.process_time()
    assert any("earlier exchanges are left out" in line for line in thread.lines(found))
    assert time.process_time() - began < 1
