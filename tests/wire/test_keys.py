"""Several keys with names: who comes in, whose name is told where, and that no key is told anywhere."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import httpx
from tests.wire.conftest import CHAT, HI, Proxy, StartProxy, read_flows

from ollama_lmstudio.record import record
from ollama_lmstudio.sim import Sim

ALICE, BOB, CAROL, ONE = "sk-alice-1f6b", "sk-bob-77aa", "sk-carol-0c3d", "sk-one-9e2e"
LINE = re.compile(r"^\d\d:\d\d:\d\d (.*)$", re.MULTILINE)


def ask(proxy: Proxy, key: str, path: str = "/api/chat", header: str = "x-api-key") -> httpx.Response:
    value = f"Bearer {key}" if header == "authorization" else key
    with proxy.client(headers={header: value}) as client:
        return client.post(path, json={"model": CHAT, "messages": HI, "max_tokens": 20})


def test_the_name_is_told_and_the_key_is_not(tmp_path: Path, sim: Sim, start_proxy: StartProxy) -> None:
    keys, saved = tmp_path / "keys", tmp_path / "flows"
    keys.write_text(f"# the team\nalice = {ALICE}\nbob={BOB}\n", newline="")
    keys.chmod(0o644)
    proxy = start_proxy(
        sim.url,
        *("-w", str(saved), "--set", f"api_keys={keys}", "--set", f"api_keys=carol={CAROL}"),
        options={"api_key": ONE},
    )
    proxy.wait_for_log(r"Clients need a key \(option api_keys\): that of carol, alice, bob, api_key\.")
    proxy.wait_for_log(rf"others on this machine may read or change {keys}")
    assert ask(proxy, ALICE).status_code == 200
    assert ask(proxy, BOB, "/v1/chat/completions", "authorization").status_code == 200
    assert ask(proxy, CAROL, "/v1/messages").status_code == 200
    assert ask(proxy, ONE).status_code == 200
    assert ask(proxy, "alice").status_code == ask(proxy, "").status_code == 401
    # The client's own key, in a place where no key belongs: the error would repeat it.
    with proxy.client(headers={"x-api-key": BOB}) as client:
        refused = client.post("/api/chat", json={"model": BOB, "messages": HI})
    assert "***" in refused.text
    assert BOB not in refused.text
    # A key is taken away, another one added: no restart.
    keys.write_text(f"alice={ALICE}\ndora=sk-dora\n", newline="")
    proxy.wait_for_log(r"api_keys: the keys were read anew: carol, alice, dora; added dora; gone bob")
    assert [ask(proxy, key).status_code for key in (ALICE, BOB, "sk-dora")] == [200, 401, 200]
    # What cannot be used is not used.
    keys.write_text("sk-dora\n", newline="")
    proxy.wait_for_log(r"api_keys: .*line 1: it is not NAME=KEY: until it can be used, all keys stay as they were")
    assert [ask(proxy, key).status_code for key in (ALICE, "sk-dora", "sk-other")] == [200, 200, 401]
    proxy.stop()

    columns = [line.split()[:2] for line in LINE.findall(proxy.log) if " 200  " in line]
    assert columns[:4] == [
        ["alice", "/api/chat"],
        ["bob", "/v1/chat/completions"],
        ["carol", "/v1/messages"],
        ["/api/chat", CHAT],
    ]
    assert re.search(r"^ +3 +0 .* alice$", proxy.log, re.MULTILINE)
    flows = read_flows(saved)
    kept = [found for flow in flows if (found := record.of(flow)) is not None]
    assert [found.key for found in kept if found.path != "/"][:6] == ["alice", "bob", "carol", "", "", ""]
    assert any(flow.comment.endswith("by alice") for flow in flows)
    requests = "".join(str(request.headers) + str(request.body) for request in sim.requests)
    for text in (proxy.log, saved.read_bytes().decode("latin-1"), requests):
        for key in (ALICE, CAROL, ONE):
            assert key not in text


def test_a_file_that_cannot_be_used_ends_the_start(tmp_path: Path, sim: Sim, start_proxy: StartProxy) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"alice {ALICE}\n", newline="")
    proxy = start_proxy(sim.url, options={"api_keys": str(keys)}, wait=False)
    assert proxy.process.wait(60) == 1
    proxy.wait_for_log(r"api_keys: .*keys, line 1: it is not NAME=KEY")
    assert ALICE not in proxy.log


def test_a_script_that_is_loaded_anew_lets_nobody_in_while_the_file_is_broken(
    tmp_path: Path, sim: Sim, start_proxy: StartProxy
) -> None:
    script, keys = tmp_path / "ollama.py", tmp_path / "keys"
    addon = Path(__file__).parents[2] / "addon"
    source = (addon / "ollama.py").read_text(encoding="utf-8").partition("from __future__ import annotations")[2]
    script.write_text(f"import sys\nsys.path.insert(0, {str(addon)!r})\n{source}", encoding="utf-8", newline="")
    keys.write_text(f"alice={ALICE}\n", newline="")
    proxy = start_proxy(sim.url, options={"api_keys": str(keys)}, script=script)
    assert ask(proxy, ALICE).status_code == 200
    keys.write_text("alice\n", newline="")
    os.utime(script, (later := time.time() + 5, later))
    proxy.wait_for(lambda: ask(proxy, ALICE).status_code == 401)
    assert ask(proxy, "").status_code == 401
    proxy.wait_for_log(r"api_keys: .*line 1: it is not NAME=KEY")
    keys.write_text(f"alice={ALICE}\n", newline="")
    proxy.wait_for(lambda: ask(proxy, ALICE).status_code == 200)
    assert "Traceback" not in proxy.log
