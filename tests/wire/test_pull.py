"""Downloads that clients ask for, through a real mitmdump."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.strict.reader import marked
from tests.wire.conftest import CHAT, DOWNLOADABLE, GPT_OSS, SCRIPT, Proxy, free_port, models, ndjson, post_bytes
from tests.wire.web import mitmweb

from ollama_lmstudio.exchanges.loopback import STOPPED
from ollama_lmstudio.sim import Sim, SimDownload, SimThread

LINK = "https://huggingface.co/owner/repo-GGUF"
REPOSITORY = "unsloth/Qwen3-4B-Instruct-2507-GGUF"
UNUSABLE = "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct"
DOWNLOAD = "/api/v1/models/download"
SLOW, FAILING, PAUSING, STUCK = "slow/model", "failing/model", "pausing/model", "stuck/model"


@pytest.fixture(scope="module")
def pull_sim() -> Iterator[Sim]:
    downloads = [
        SimDownload(DOWNLOADABLE, seconds=1.0),
        SimDownload(LINK, seconds=0.5),
        SimDownload(SLOW, seconds=3600),
        SimDownload(FAILING, seconds=0.5, outcome="failed", error_message="no space left on this disk"),
        SimDownload(PAUSING, seconds=0.6, paused_at=0.5, paused_seconds=1.0),
        SimDownload(STUCK, outcome="stuck", seconds=1),
        SimDownload(f"https://huggingface.co/{REPOSITORY}", seconds=0.3),
        SimDownload(f"https://huggingface.co/{UNUSABLE}", compatible=False),
    ]
    with SimThread(models=models(), downloads=downloads) as sim:
        yield sim


@pytest.fixture(scope="module")
def puller(pull_sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(pull_sim.url, state_dir=tmp_path_factory.mktemp("state")) as proxy:
        proxy.wait_for_log(r"\(\d+ models\)")
        yield proxy


@pytest.fixture
def api(puller: Proxy, pull_sim: Sim) -> Iterator[httpx.Client]:
    pull_sim.faults.clear()
    pull_sim.clear()
    with puller.client() as client:
        yield client


def asked(sim: Sim) -> list[Any]:
    """Give what LM Studio was asked to download."""
    return [json.loads(request.body) for request in sim.requests if request.path == DOWNLOAD]


def polls(sim: Sim) -> int:
    return len([request for request in sim.requests if request.path.startswith(f"{DOWNLOAD}/status/")])


def test_download(api: httpx.Client, pull_sim: Sim) -> None:
    times: list[float] = []
    lines: list[dict[str, Any]] = []
    with api.stream("POST", "/api/pull", json={"name": DOWNLOADABLE}, headers={"Origin": "http://localhost"}) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
        assert answer.headers["access-control-allow-origin"] == "http://localhost"
        assert answer.headers["transfer-encoding"] == "chunked"
        assert "server" not in answer.headers
        for line in answer.iter_lines():
            times.append(time.monotonic())
            lines.append(json.loads(line))
    assert asked(pull_sim) == [{"model": DOWNLOADABLE}]
    assert [line["status"] for line in (lines[0], *lines[-3:])] == [
        "pulling manifest",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    progress = lines[1:-3]
    (digest,) = {line["digest"] for line in progress}
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    assert {line["status"] for line in progress} == {f"pulling {digest[7:19]}"}
    completed = [line.get("completed", 0) for line in progress]
    assert completed == sorted(completed)
    assert len(set(completed)) > 2
    assert completed[-1] == progress[-1]["total"]
    # The lines came while LM Studio was downloading.
    assert times[-1] - times[0] > 0.7
    # The list is read anew: the model is there at once.
    names = [entry["name"] for entry in api.get("/api/tags").json()["models"]]
    assert f"{DOWNLOADABLE}:latest" in names


def test_link(api: httpx.Client, pull_sim: Sim) -> None:
    lines = ndjson(api.post("/api/pull", json={"model": "hf.co/owner/repo-GGUF:q4_k_m"}))
    assert lines[-1] == {"status": "success"}
    assert asked(pull_sim) == [{"model": LINK, "quantization": "q4_k_m"}]


def test_a_repository_is_used_under_the_name_it_was_pulled_by(api: httpx.Client, pull_sim: Sim) -> None:
    """LM Studio calls it `qwen3-4b-instruct-2507`."""
    name = f"hf.co/{REPOSITORY}:Q4_K_M"
    assert api.post("/api/show", json={"model": name}).status_code == 404
    assert ndjson(api.post("/api/pull", json={"model": name}))[-1] == {"status": "success"}
    assert asked(pull_sim) == [{"model": f"https://huggingface.co/{REPOSITORY}", "quantization": "Q4_K_M"}]
    for used in (name, f"hf.co/{REPOSITORY}", REPOSITORY):
        messages = [{"role": "user", "content": "hi"}]
        answer = api.post("/api/chat", json={"model": used, "messages": messages, "stream": False})
        assert (answer.status_code, answer.json()["model"]) == (200, used)
        assert json.loads(pull_sim.requests[-1].body)["model"] == "qwen3-4b-instruct-2507"
        assert api.post("/api/show", json={"model": used}).json()["details"]["quantization_level"] == "Q4_K_M"
        through = api.post("/v1/chat/completions", json={"model": used, "messages": messages})
        assert through.status_code == 200
    for other in (f"hf.co/{REPOSITORY}:Q8_0", name.replace("unsloth", "someone")):
        assert api.post("/api/show", json={"model": other}).status_code == 404


@pytest.mark.parametrize("name", [CHAT, f"{GPT_OSS}:latest", "gpt-oss:20b"])
def test_already_here(api: httpx.Client, pull_sim: Sim, name: str) -> None:
    assert ndjson(api.post("/api/pull", json={"model": name})) == [
        {"status": "pulling manifest"},
        {"status": "success"},
    ]
    assert polls(pull_sim) == 0


def test_unknown(api: httpx.Client) -> None:
    error = {"error": "pull model manifest: file does not exist"}
    assert ndjson(api.post("/api/pull", json={"model": "nosuch:7b"})) == [{"status": "pulling manifest"}, error]
    whole = api.post("/api/pull", json={"model": "nosuch", "stream": False})
    assert (whole.status_code, whole.json()) == (500, error)
    assert whole.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Model a/b not found in catalog", "file does not exist"),
        ("Could not find the model a/b", "file does not exist"),
        ("Repository does not exist", "file does not exist"),
        ("Quantization Q9 not found, it has Q4_K_M", "Quantization Q9 not found, it has Q4_K_M"),
        ("This model needs a newer version of LM Studio", "This model needs a newer version of LM Studio"),
    ],
)
def test_lmstudios_own_reason_is_told(api: httpx.Client, pull_sim: Sim, said: str, told: str) -> None:
    error = json.dumps({"error": {"type": "model_not_found", "message": said}})
    pull_sim.fault(path=DOWNLOAD, times=1, pre_error=(404, "application/json", error))
    lines = ndjson(api.post("/api/pull", json={"model": "hf.co/a/b"}))
    assert lines == [{"status": "pulling manifest"}, {"error": f"pull model manifest: {told}"}]


def test_a_repository_with_nothing_to_run_is_no_spelling_mistake(api: httpx.Client) -> None:
    reason = f"No compatible download options found for hugging face URL https://huggingface.co/{UNUSABLE}"
    lines = ndjson(api.post("/api/pull", json={"model": f"hf.co/{UNUSABLE}"}))
    assert [lines[0], list(lines[1])] == [{"status": "pulling manifest"}, ["error"]]
    assert reason in lines[1]["error"]
    assert "file does not exist" not in lines[1]["error"]
    whole = api.post("/api/pull", json={"model": f"hf.co/{UNUSABLE}", "stream": False})
    assert (whole.status_code, whole.json()) == (500, lines[1])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "missing request body"),
        (b"{}", "invalid model name"),
        (b'{"model":"a b"}', "invalid model name"),
        (b'{"model":7}', "json: cannot unmarshal number into Go struct field PullRequest.model of type string"),
    ],
)
def test_refused(api: httpx.Client, pull_sim: Sim, body: bytes, message: str) -> None:
    response = api.post("/api/pull", content=body)
    assert (response.status_code, response.json()) == (400, {"error": message})
    assert not asked(pull_sim)


def test_whole(api: httpx.Client) -> None:
    response = api.post("/api/pull", json={"model": "hf.co/owner/repo-GGUF", "stream": False})
    assert (response.status_code, response.content) == (200, b'{"status":"success"}')
    assert response.headers["content-type"] == "application/json"


def test_failure(api: httpx.Client) -> None:
    lines = ndjson(api.post("/api/pull", json={"model": FAILING}))
    assert lines[-1] == {"error": "no space left on this disk"}
    whole = api.post("/api/pull", json={"model": FAILING, "stream": False})
    assert (whole.status_code, whole.json()) == (500, {"error": "no space left on this disk"})


def test_pause(api: httpx.Client) -> None:
    lines = ndjson(api.post("/api/pull", json={"model": PAUSING}))
    paused = [at for at, line in enumerate(lines) if "paused" in line["status"]]
    assert len(paused) == 1
    # Ollama's command line tool shows the status of a line without a digest only: the others are a bar.
    assert list(lines[paused[0]]) == ["status"]
    before, after = lines[paused[0] - 1], lines[paused[0] + 1]
    assert (before["digest"], before["status"]) == (after["digest"], after["status"])
    assert lines[-1]["status"] == "success"


def test_stuck_job_that_runs_already_is_followed(puller: Proxy, api: httpx.Client, pull_sim: Sim) -> None:
    with marked(cut=True), api.stream("POST", "/api/pull", json={"model": STUCK}) as first:
        assert [json.loads(line)["status"] for _, line in zip(range(2), first.iter_lines(), strict=False)]
        refusal = (400, "application/json", '{"error": {"message": "This download is already in progress"}}')
        pull_sim.fault(path=DOWNLOAD, times=1, pre_error=refusal)
        with puller.client() as other, other.stream("POST", "/api/pull", json={"model": STUCK}) as second:
            lines = second.iter_lines()
            assert json.loads(next(lines)) == {"status": "pulling manifest"}
            assert json.loads(next(lines))["total"] > 0


@pytest.mark.parametrize("stream", [True, False])
def test_client_leaves(puller: Proxy, api: httpx.Client, pull_sim: Sim, stream: bool) -> None:
    with marked(cut=True), puller.connect() as sock:
        sock.sendall(post_bytes("/api/pull", {"model": SLOW, "stream": stream}))
        puller.wait_for(lambda: polls(pull_sim) > 2)
    time.sleep(0.3)
    before = polls(pull_sim)
    time.sleep(1.5)
    assert polls(pull_sim) <= before + 1
    time.sleep(1.2)
    assert polls(pull_sim) <= before + 1


def test_http_1_0(puller: Proxy, api: httpx.Client) -> None:
    answer = puller.raw(post_bytes("/api/pull", {"model": CHAT}, version="1.0"))
    assert (answer.status, answer.closed, answer.header("transfer-encoding")) == (200, True, None)
    assert answer.body == b'{"status":"pulling manifest"}\n{"status":"success"}\n'


def test_lmstudio_is_away(tmp_path: Path) -> None:
    with Proxy(f"http://127.0.0.1:{free_port()}", state_dir=tmp_path) as proxy, proxy.client() as client:
        lines = ndjson(client.post("/api/pull", json={"model": "a/b"}))
        assert [*lines[0].values(), "not reachable" in lines[1]["error"]] == ["pulling manifest", True]
        whole = client.post("/api/pull", json={"model": "a/b", "stream": False})
        assert (whole.status_code, "not reachable" in whole.json()["error"]) == (503, True)


def test_reload_ends_what_is_served(pull_sim: Sim, tmp_path: Path) -> None:
    script = tmp_path / "ollama.py"
    shutil.copy(SCRIPT, script)
    environment = {"PYTHONPATH": str(SCRIPT.parent)}
    with (
        Proxy(pull_sim.url, state_dir=tmp_path, script=script, environment=environment) as proxy,
        proxy.client() as client,
        client.stream("POST", "/api/pull", json={"model": SLOW}) as answer,
    ):
        lines = answer.iter_lines()
        assert "digest" in json.loads([next(lines), next(lines)][-1])
        os.utime(script, (0, time.time() + 10))
        assert json.loads([*lines][-1]) == {"error": STOPPED}
        assert ndjson(client.post("/api/pull", json={"model": CHAT}))[-1] == {"status": "success"}
        assert "Traceback" not in proxy.log


def test_another_option_does_not_disturb_what_is_served(pull_sim: Sim, tmp_path: Path) -> None:
    with (
        mitmweb(pull_sim.url, state_dir=tmp_path) as (proxy, web),
        proxy.client() as client,
        marked(cut=True),
        client.stream("POST", "/api/pull", json={"model": SLOW}) as answer,
    ):
        lines = map(json.loads, answer.iter_lines())
        first = next(line for line in lines if "digest" in line)
        web.option(allowed_hosts=["llm.example"])
        assert web.http.get("/options").json()["allowed_hosts"]["value"] == ["llm.example"]
        assert next(line for line in lines if line.get("completed", 0) > first.get("completed", 0))


def test_stop_ends_what_is_served(pull_sim: Sim, tmp_path: Path) -> None:
    with Proxy(pull_sim.url, state_dir=tmp_path) as proxy, marked(cut=True), proxy.connect() as sock:
        sock.sendall(post_bytes("/api/pull", {"model": SLOW}))
        data = b""
        while b"sha256:" not in data:
            data += sock.recv(65536)
        assert proxy.stop() == 0
        assert "tornado" not in proxy.log


# Push


def test_push(api: httpx.Client, pull_sim: Sim) -> None:
    said = [line["status"] for line in ndjson(api.post("/api/push", json={"name": CHAT}))]
    assert said == ["retrieving manifest", "LM Studio has no registry: nothing was sent", "success"]
    whole = api.post("/api/push", json={"model": CHAT, "stream": False})
    assert (whole.status_code, whole.content) == (200, b'{"status":"success"}')
    assert not asked(pull_sim)


def test_push_of_an_unknown_model(api: httpx.Client) -> None:
    lines = ndjson(api.post("/api/push", json={"model": "nosuch"}))
    assert [*lines[:2]] == [{"status": "retrieving manifest"}, {"status": "couldn't retrieve manifest"}]
    assert list(lines[2]) == ["error"]
    response = api.post("/api/push", json={"model": ""})
    assert (response.status_code, response.json()) == (400, {"error": "model is required"})
