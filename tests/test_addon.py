"""The addon in mitmproxy: what stops its start, and that its hooks are what the state machine is reached by."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

from mitmproxy import hooks
from tests.wire.conftest import free_port

from ollama_lmstudio import addon

ADDON = Path(__file__).parents[1] / "addon"

# A mitmproxy that writes a request's headers field by field.
UNSEALED = f"""
import sys
sys.path.insert(0, {str(ADDON)!r})
from mitmproxy.net.http import http1
http1.assemble_request_head = lambda request: b"".join(b"%b: %b" % field for field in request.headers.fields)
from ollama_lmstudio.addon import OllamaBridge
addons = [OllamaBridge()]
"""


def test_a_mitmproxy_that_would_send_the_mask_is_not_started(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNSEALED)
    # Called from -c, so that it is this environment's mitmproxy on any system.
    arguments = ["-s", str(script), "-p", str(free_port())]
    ended = subprocess.run(
        [sys.executable, "-c", f"from mitmproxy.tools.main import mitmdump; mitmdump({arguments!r})"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "it would send *** in place of the token" in ended.stdout + ended.stderr


def test_the_hooks_only_find_the_exchange_and_call_it() -> None:
    lines = inspect.getsource(addon).count("\n")
    assert lines <= 200
    assert inspect.getsource(addon.OllamaBridge).count("\n") <= 150
    for name in ("requestheaders", "request", "responseheaders", "response", "error"):
        body = inspect.getsource(getattr(addon.OllamaBridge, name)).splitlines()
        assert len(body) <= 4, name


def test_what_is_under_way_at_a_reload_has_every_hook_left() -> None:
    of_a_flow = {name for name in vars(addon.OllamaBridge) if name in hooks.all_hooks}
    begun_by = {"load", "configure", "running", "done", "requestheaders", "client_disconnected"}
    assert of_a_flow - begun_by == {name for name in vars(addon.Remaining) if name in hooks.all_hooks}
