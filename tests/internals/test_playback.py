"""The recording that mitmproxy answers from."""

from __future__ import annotations

import pytest
from mitmproxy.addons import serverplayback
from mitmproxy.test import tflow
from tests.internals.helpers import master_with

from ollama_lmstudio.internals import playback


def test_the_recording_is_what_server_replay_has(monkeypatch: pytest.MonkeyPatch) -> None:
    served = serverplayback.ServerPlayback()
    first, second, other = tflow.tflow(resp=True), tflow.tflow(resp=True), tflow.tflow(resp=True)
    served.flowmap = {b"same": [first, second], b"other": [other]}
    master_with(monkeypatch, serverplayback=served)
    assert playback.recorded_flows() == [first, second, other]
    playback.prefer_recorded(second)
    assert served.flowmap[b"same"] == [second, first]
    master_with(monkeypatch)
    assert playback.recorded_flows() == []
