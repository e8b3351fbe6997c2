"""Aliases through a real mitmdump: made, used wherever a model is, shared and kept."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.wire.conftest import CHAT, CODER, EMBEDDER, HI, THINKING, VISION, Proxy, StartProxy, models, ndjson

from ollama_lmstudio.sim import Sim, SimModel, SimThread

JSON = "application/json; charset=utf-8"
PLAIN_JSON = "application/json"
DIGEST = "sha256:" + "0" * 64
ADAPTER = b"GGUF\3"
ADAPTER_DIGEST = f"sha256:{hashlib.sha256(ADAPTER).hexdigest()}"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()


@pytest.fixture
def client(client: httpx.Client) -> Iterator[httpx.Client]:
    """A client of an addon without aliases; those that a test makes are deleted."""
    yield client
    own = {f"{model.key}:latest" for model in models()}
    for name in names(client):
        if name not in own or client.post("/api/show", json={"model": name}).json()["details"]["parent_model"]:
            assert delete(client, name).status_code == 200
    assert set(names(client)) == own


def names(client: httpx.Client, path: str = "/api/tags") -> list[str]:
    return [entry["name"] for entry in client.get(path).json()["models"]]


def create(client: httpx.Client, name: str, source: str = CHAT, **values: Any) -> None:
    body = {"model": name, "from": source, "stream": False} | values
    response = client.post("/api/create", json=body)
    assert (response.status_code, response.text) == (200, '{"status":"success"}')


def delete(client: httpx.Client, name: str) -> httpx.Response:
    return client.request("DELETE", "/api/delete", json={"model": name})


def show(client: httpx.Client, name: str, **values: Any) -> dict[str, Any]:
    response = client.post("/api/show", json={"model": name} | values)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def sent(client: httpx.Client, sim: Sim, path: str, **body: Any) -> dict[str, Any]:
    """Ask for one object, and give what reached LM Studio for it."""
    sim.clear()
    response = client.post(path, json={"stream": False} | body)
    assert response.status_code == 200, response.text
    assert response.json()["model"] == body["model"]
    (request,) = [request for request in sim.requests if request.method == "POST"]
    received: dict[str, Any] = json.loads(request.body)
    return received


# Create


def test_create_streams_its_status(client: httpx.Client, sim: Sim) -> None:
    response = client.post("/api/create", json={"model": "Mine", "from": "llama3.2:3b"})
    first, *rest = ndjson(response)
    digests = {entry["name"]: entry["digest"] for entry in client.get("/api/tags").json()["models"]}
    assert first == {"status": f"using existing layer sha256:{digests[f'{CHAT}:latest']}"}
    assert rest == [{"status": "writing manifest"}, {"status": "success"}]
    assert "Mine:latest" in digests
    assert not sim.instances


def test_create_answers_with_one_object(client: httpx.Client) -> None:
    response = client.post("/api/create", json={"name": "mine", "from": CHAT, "stream": False})
    assert (response.status_code, response.text) == (200, '{"status":"success"}')
    assert response.headers["content-type"] == PLAIN_JSON


@pytest.mark.parametrize(
    ("body", "status", "content_type", "error"),
    [
        (b"", 400, JSON, "missing request body"),
        ({"from": CHAT}, 400, JSON, "invalid model name"),
        ({"model": "a b", "from": CHAT}, 400, JSON, "invalid model name"),
        ({"model": "mine:cloud", "from": CHAT}, 400, JSON, "invalid model name"),
        ({"model": "mine:7b-cloud", "from": CHAT}, 400, JSON, "invalid model name"),
        ({"model": "mine", "files": {"/x.gguf": DIGEST}}, 400, JSON, "file path must be relative"),
        ({"model": "mine", "files": {"../x.gguf": DIGEST}}, 400, JSON, "file path must be relative"),
        ({"model": "mine", "files": {"x.gguf": ""}}, 400, JSON, "invalid digest format"),
        ({"model": "mine", "draft_files": {"../x": DIGEST}}, 400, JSON, "file path must be relative"),
        ({"model": "mine", "from": CHAT, "adapters": {"x": ""}}, 400, JSON, "invalid digest format"),
        ({"model": "mine", "from": CHAT, "capabilities": ["swim"]}, 400, JSON, 'unknown capability: "swim"'),
        ({"model": "a b", "capabilities": ["swim"]}, 400, JSON, 'unknown capability: "swim"'),
        ({"model": "mine", "files": {"x.safetensors": "md5:0"}}, 500, PLAIN_JSON, "invalid digest format"),
        ({"model": "mine", "files": {"x": DIGEST}}, 400, PLAIN_JSON, "unknown type"),
        ({"model": "mine", "from": CHAT, "adapters": {}}, 400, PLAIN_JSON, "unknown type"),
        ({"model": "mine", "from": CHAT, "adapters": {"x": DIGEST}}, 400, PLAIN_JSON, "unknown type"),
        ({"model": "mine", "from": CHAT, "adapters": {"x": "0"}}, 400, PLAIN_JSON, "unknown type"),
        (
            {"model": "mine", "from": CHAT, "adapters": {"x.safetensors": DIGEST}},
            400,
            PLAIN_JSON,
            "open .*: no such .*",
        ),
        ({"model": "mine", "files": {}}, 400, PLAIN_JSON, "unknown type"),
        ({"model": "mine", "files": {"x.safetensors": DIGEST}}, 500, PLAIN_JSON, "open .*: no such file or directory"),
        ({"model": "mine", "from": CHAT, "draft_files": {"x": DIGEST}}, 400, PLAIN_JSON, r"LM Studio cannot import .*"),
        (
            {"model": "mine", "from": CHAT, "adapters": {"x.gguf": DIGEST, "y.gguf": DIGEST}},
            400,
            PLAIN_JSON,
            "only one adapter is currently supported",
        ),
        (
            {"model": "mine", "from": CHAT, "info": {"context_length": "long"}},
            400,
            PLAIN_JSON,
            'info field "context_length" must be a number',
        ),
        ({"model": "mine", "from": CHAT, "remote_host": "https://h"}, 403, PLAIN_JSON, "ollama cloud is disabled: .*"),
        ({"model": "mine", "from": CHAT, "remote_host": "http://[x"}, 400, PLAIN_JSON, "bad remote"),
        ({"model": "mine", "from": CHAT, "draft_quantize": "Q8_0"}, 400, JSON, "--draft-quantize requires .*"),
        (
            {"model": "mine", "from": CHAT, "template": "a\n{{ if .X }}"},
            400,
            PLAIN_JSON,
            "template error: template: :2: unexpected EOF",
        ),
        (
            {"model": "mine", "from": CHAT, "template": "{{ tojson .Messages }}"},
            400,
            PLAIN_JSON,
            'template error: template: :1: function "tojson" not defined',
        ),
        ({"model": "mine", "from": CHAT, "quantize": "q9"}, 500, PLAIN_JSON, r"unsupported quantization type Q9 - .*"),
        ({"model": "mine", "from": CHAT, "quantization": "q8_0"}, 500, PLAIN_JSON, "quantization is only supported .*"),
        ({"model": "mine"}, 400, PLAIN_JSON, "neither 'from' or 'files' was specified"),
        ({"model": "mine", "from": "a b"}, 400, PLAIN_JSON, "invalid model name"),
        ({"model": "mine", "from": "nosuch"}, 404, PLAIN_JSON, "model 'nosuch' not found"),
        ({"model": "mine", "from": "x:cloud"}, 403, PLAIN_JSON, "ollama cloud is disabled: .*"),
        (
            {"model": "mine", "from": CHAT, "license": 5},
            500,
            PLAIN_JSON,
            r"json: cannot unmarshal number into Go value of type \[\]string",
        ),
        (
            {"model": "mine", "from": CHAT, "license": ["a", {}]},
            500,
            PLAIN_JSON,
            "json: cannot unmarshal object into Go value of type string",
        ),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_create_refuses(
    client: httpx.Client, body: Any, status: int, content_type: str, error: str, stream: bool
) -> None:
    before = names(client)
    content = body if isinstance(body, bytes) else json.dumps({"stream": stream} | body)
    response = client.post("/api/create", content=content)
    assert (response.status_code, response.headers["content-type"]) == (status, content_type)
    assert re.fullmatch(error, response.json()["error"])
    assert names(client) == before


@pytest.mark.parametrize(
    ("data", "error"), [(b"GGUF\3", "LM Studio cannot import"), (b"hello", "supplied file was not in GGUF format")]
)
def test_create_looks_into_files(client: httpx.Client, data: bytes, error: str) -> None:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
    response = client.post("/api/create", json={"model": "mine", "files": {"x.gguf": digest}})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson")
    first, last = response.text.splitlines()
    assert first == '{"status":"parsing GGUF"}'
    assert json.loads(last)["error"].startswith(error)
    client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
    response = client.post("/api/create", json={"model": "mine", "files": {"x": digest}, "stream": False})
    assert response.status_code == 400
    assert response.json()["error"].startswith(error if data.startswith(b"GGUF") else "unknown type")


def test_an_adapter_that_is_no_gguf_is_told_while_it_is_read(client: httpx.Client) -> None:
    digest = f"sha256:{hashlib.sha256(b'hello').hexdigest()}"
    client.post(f"/api/blobs/{digest}", content=b"hello").raise_for_status()
    body = {"model": "mine", "from": CHAT, "adapters": {"x.gguf": digest}}
    lines = ndjson(client.post("/api/create", json=body))
    assert lines == [{"status": "parsing GGUF"}, {"error": "supplied file was not in GGUF format"}]
    # It has been removed with the refusal.
    *_, error = ndjson(client.post("/api/create", json=body))
    assert re.fullmatch("open .*: no such file or directory", error["error"])
    whole = client.post("/api/create", json=body | {"stream": False})
    assert (whole.status_code, whole.json()) == (400, error)


def test_parameters_are_checked_when_they_are_used(client: httpx.Client) -> None:
    create(client, "mine", parameters={"num_ctx": "x"})
    assert show(client, "mine")["parameters"].split() == ["num_ctx", '"x"']
    answer = client.post("/api/chat", json={"model": "mine", "messages": HI})
    assert (answer.status_code, answer.json()) == (500, {"error": 'option "num_ctx" must be of type integer'})


def test_what_is_kept_and_not_applied_is_said(client: httpx.Client) -> None:
    client.post(f"/api/blobs/{ADAPTER_DIGEST}", content=ADAPTER).raise_for_status()
    body = {
        "model": "mine",
        "from": CHAT,
        "system": "S",
        "adapters": {"x.gguf": ADAPTER_DIGEST},
        "template": "{{ .Prompt }}",
        "renderer": "qwen3.5",
        "parser": "qwen3",
        "requires": "0.14.0",
        "capabilities": ["tools", "audio"],
        "info": {"capabilities": ["insert"]},
        "parameters": {"temperature": 0.5, "num_ctx": 4096, "mirostat": 1},
    }
    said = [line["status"] for line in ndjson(client.post("/api/create", json=body))]
    assert said[0] == "parsing GGUF"
    assert said[1].startswith("using existing layer sha256:")
    assert said[2:] == [
        "kept and shown, but not applied by LM Studio: template, adapters, renderer, parser, requires, capabilities, "
        "parameter mirostat, parameter num_ctx",
        "writing manifest",
        "success",
    ]
    mine = show(client, "mine")
    own = show(client, CHAT)["capabilities"]
    assert mine["capabilities"] == [*own, "audio", "insert"]
    assert (mine["renderer"], mine["parser"], mine["requires"]) == ("qwen3.5", "qwen3", "0.14.0")
    keys = list(mine)
    assert keys[keys.index("system") :][:4] == ["system", "renderer", "parser", "details"]
    assert keys[-1] == "requires"
    assert "RENDERER qwen3.5\nPARSER qwen3\nREQUIRES 0.14.0\n" in mine["modelfile"]
    (tag,) = [entry for entry in client.get("/api/tags").json()["models"] if entry["name"] == "mine:latest"]
    assert tag["capabilities"] == mine["capabilities"]

    # A copy, and what is made of it, has all of it.
    client.post("/api/copy", json={"source": "mine", "destination": "two"}).raise_for_status()
    create(client, "three", "two", parser="harmony", capabilities=["speech"])
    three = show(client, "three")
    assert (three["renderer"], three["parser"]) == ("qwen3.5", "harmony")
    assert three["capabilities"] == [*mine["capabilities"], "speech"]


def test_what_is_applied_is_not_mentioned(client: httpx.Client) -> None:
    body = {"model": "mine", "from": CHAT, "system": "S", "parameters": {"temperature": 0.5}, "license": "MIT"}
    said = [line["status"] for line in ndjson(client.post("/api/create", json=body))]
    assert said[1:] == ["writing manifest", "success"]


def test_create_from_an_alias_keeps_what_is_not_given(client: httpx.Client) -> None:
    create(client, "base", system="old", parameters={"top_k": 5, "seed": 1}, license="one", template="T")
    create(client, "mine", "base", system="new", parameters={"seed": 2}, license=["two", "three"])
    mine = show(client, "mine")
    assert (mine["system"], mine["template"], mine["license"]) == ("new", "T", "one\ntwo\nthree")
    assert mine["parameters"].split() == ["top_k", "5", "seed", "2"]
    assert show(client, "base")["system"] == "old"
    assert delete(client, "base").status_code == 200
    assert show(client, "mine")["system"] == "new"


def test_create_again_replaces(client: httpx.Client) -> None:
    create(client, "Mine", system="old")
    before = show(client, "mine")["modified_at"]
    create(client, "MINE", "mine", system="new")
    assert [name for name in names(client) if name.lower() == "mine:latest"] == ["Mine:latest"]
    again = show(client, "mine")
    assert again["system"] == "new"
    assert again["modified_at"] > before


# Copy and delete


def test_copy(client: httpx.Client) -> None:
    create(client, "base", system="S")
    for source, destination in (("base", "ns/Two:7b"), (CHAT, "three"), ("BASE", "base"), (CHAT, CHAT)):
        response = client.post("/api/copy", json={"source": source, "destination": destination})
        assert (response.status_code, response.content) == (200, b"")
        assert "content-type" not in response.headers
        assert response.headers["content-length"] == "0"
    assert show(client, "NS/two:7B")["system"] == "S"
    assert "system" not in show(client, "three")
    assert set(names(client)) - {f"{model.key}:latest" for model in models()} == {
        "base:latest",
        "ns/Two:7b",
        "three:latest",
    }
    assert show(client, CHAT)["details"]["parent_model"] == ""


def test_copies_at_once_while_the_list_is_read(client: httpx.Client) -> None:
    """On Windows, a file that is read cannot be replaced."""

    def copy(number: int) -> tuple[int, str]:
        answer = client.post("/api/copy", json={"source": CHAT, "destination": f"copy-{number}"})
        return answer.status_code, answer.text

    before = set(names(client))
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(copy, number) for number in range(24)]
        while not all(answer.done() for answer in answers):
            names(client)
    assert [answer.result() for answer in answers] == [(200, "")] * 24
    assert set(names(client)) - before == {f"copy-{number}:latest" for number in range(24)}


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({}, 400, 'source "" is invalid'),
        ({"source": "a b", "destination": "x"}, 400, 'source "a b" is invalid'),
        ({"source": "a@b", "destination": "x"}, 400, 'source "a@b" is invalid'),
        ({"source": CHAT, "destination": "b b"}, 400, 'destination "b b" is invalid'),
        ({"source": CHAT}, 400, 'destination "" is invalid'),
        ({"source": CHAT, "destination": "x:cloud"}, 400, 'destination "x:cloud" is invalid'),
        ({"source": "nosuch", "destination": "x"}, 404, 'model "nosuch" not found'),
    ],
)
def test_copy_refuses(client: httpx.Client, body: Any, status: int, error: str) -> None:
    response = client.post("/api/copy", json=body)
    assert (response.status_code, response.json()) == (status, {"error": error})
    assert response.headers["content-type"] == JSON


def test_delete(client: httpx.Client) -> None:
    create(client, "mine")
    response = client.request("DELETE", "/api/delete", json={"name": "MINE:Latest"})
    assert (response.status_code, response.content) == (200, b"")
    assert "content-type" not in response.headers
    assert "mine:latest" not in names(client)
    assert delete(client, "mine").status_code == 404


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("", 400, "model is required"),
        ("a b", 400, 'name "a b" is invalid'),
        ("a@sha256:b", 400, 'name "a@sha256:b" is invalid'),
        ("nosuch", 404, "model 'nosuch' not found"),
        ("nosuch:cloud", 404, "model 'nosuch:cloud' not found"),
        (CHAT, 400, f"LM Studio has no call that deletes a model: delete {CHAT} in LM Studio itself, in My Models"),
    ],
)
def test_delete_refuses(client: httpx.Client, name: str, status: int, error: str) -> None:
    response = delete(client, name)
    assert (response.status_code, response.json()) == (status, {"error": error})
    assert f"{CHAT}:latest" in names(client)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", "/api/create", "POST"), ("GET", "/api/copy", "POST"), ("POST", "/api/delete", "DELETE")],
)
def test_methods(client: httpx.Client, method: str, path: str, allow: str) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allow)


# Used


def test_chat(client: httpx.Client, sim: Sim) -> None:
    create(
        client,
        "mine",
        system="Be brief.",
        parameters={"temperature": 0.25, "num_predict": 7, "stop": ["END"], "top_k": 3},
        messages=[{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}],
    )
    said = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]
    body = sent(client, sim, "/api/chat", model="mine", messages=HI)
    assert body["model"] == CHAT
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, *said, *HI]
    assert {key: body[key] for key in ("temperature", "max_tokens", "stop", "top_k")} == {
        "temperature": 0.25,
        "max_tokens": 7,
        "stop": ["END"],
        "top_k": 3,
    }

    body = sent(
        client,
        sim,
        "/api/chat",
        model="Mine:latest",
        messages=[{"role": "system", "content": "Be long."}, *HI],
        options={"temperature": 1, "max_tokens": 9, "stop": [], "top_k": None},
    )
    assert body["messages"] == [{"role": "system", "content": "Be long."}, *said, *HI]
    assert (body["temperature"], body["max_tokens"], body["top_k"]) == (1, 9, 3)
    assert "stop" not in body


def test_a_streamed_chat_calls_the_model_as_the_client_does(client: httpx.Client, sim: Sim) -> None:
    create(client, "mine")
    lines = ndjson(client.post("/api/chat", json={"model": "MINE", "messages": HI}))
    assert {line["model"] for line in lines} == {"MINE"}
    assert lines[-1]["done"] is True


def test_messages_keep_images_and_calls(client: httpx.Client, sim: Sim) -> None:
    messages = [
        {"role": "user", "content": "look", "images": [PNG]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "done", "tool_name": "f"},
    ]
    create(client, "mine", VISION, messages=messages)
    body = sent(client, sim, "/api/chat", model="mine", messages=HI)
    looked, called, answered, asked = body["messages"]
    assert looked["content"][1]["image_url"]["url"].endswith(PNG)
    assert called["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert answered == {"role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": "done"}
    assert asked == HI[0]
    assert [message["role"] for message in show(client, "mine")["messages"]] == ["user", "assistant", "tool"]


def test_generate(client: httpx.Client, sim: Sim) -> None:
    create(client, "mine", system="Be brief.", parameters={"seed": 4}, messages=[{"role": "user", "content": "before"}])
    before = {"role": "user", "content": "before"}
    body = sent(client, sim, "/api/generate", model="mine", prompt="hi")
    assert (body["model"], body["seed"]) == (CHAT, 4)
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, before, *HI]
    body = sent(client, sim, "/api/generate", model="mine", prompt="hi", system="Be long.", options={"seed": 5})
    assert body["messages"] == [{"role": "system", "content": "Be long."}, before, *HI]
    assert body["seed"] == 5
    body = sent(client, sim, "/api/generate", model="mine", prompt="hi", raw=True)
    assert body["prompt"] == "hi"


def test_generate_goes_on_from_a_context(client: httpx.Client, sim: Sim) -> None:
    create(client, "mine", system="S", messages=[{"role": "user", "content": "before"}])
    answer = client.post("/api/generate", json={"model": "mine", "prompt": "one", "stream": False}).json()
    body = sent(client, sim, "/api/generate", model="mine", prompt="two", context=answer["context"])
    assert [(message["role"], message["content"]) for message in body["messages"]] == [
        ("system", "S"),
        ("user", "before"),
        ("user", "one"),
        ("assistant", answer["response"]),
        ("user", "two"),
    ]


def test_embed(client: httpx.Client, sim: Sim) -> None:
    create(client, "mine", EMBEDDER)
    assert sent(client, sim, "/api/embed", model="mine", input="hi")["model"] == EMBEDDER
    response = client.post("/api/embeddings", json={"model": "mine", "prompt": "hi"})
    assert response.status_code == 200
    assert show(client, "mine")["capabilities"] == ["embedding"]


def test_what_the_model_cannot_the_alias_cannot(client: httpx.Client) -> None:
    create(client, "mine", EMBEDDER)
    response = client.post("/api/chat", json={"model": "mine", "messages": HI})
    assert (response.status_code, response.json()) == (400, {"error": '"mine" does not support chat'})


def test_load_list_and_unload(client: httpx.Client, sim: Sim) -> None:
    create(client, "mine")
    create(client, "idle", CODER)
    response = client.post("/api/generate", json={"model": "mine"})
    assert response.json()["done_reason"] == "load"
    assert [instance.id for instance in sim.instances] == [CHAT]
    assert names(client, "/api/ps") == [f"{CHAT}:latest", "mine:latest"]
    running = {entry["name"]: entry["digest"] for entry in client.get("/api/ps").json()["models"]}
    listed = {entry["name"]: entry["digest"] for entry in client.get("/api/tags").json()["models"]}
    assert running.items() <= listed.items()
    assert len(set(running.values())) == 2
    response = client.post("/api/generate", json={"model": "mine", "keep_alive": 0})
    assert response.json()["done_reason"] == "unload"
    assert not sim.instances


def test_tags(client: httpx.Client) -> None:
    create(client, "mine")
    entries = client.get("/api/tags").json()["models"]
    model = next(entry for entry in entries if entry["name"] == f"{CHAT}:latest")
    assert entries[-1]["name"] == entries[-1]["model"] == "mine:latest"
    assert entries[-1]["modified_at"] > model["modified_at"]
    own = {"name", "model", "modified_at", "digest"}
    assert {k: v for k, v in entries[-1].items() if k not in own} == {k: v for k, v in model.items() if k not in own}
    plain = entries[-1]["digest"]
    create(client, "mine", system="S")
    assert client.get("/api/tags").json()["models"][-1]["digest"] not in (plain, model["digest"])


def test_show(client: httpx.Client) -> None:
    client.post(f"/api/blobs/{ADAPTER_DIGEST}", content=ADAPTER).raise_for_status()
    create(
        client,
        "Mine:7b",
        THINKING,
        system="Be\nbrief.",
        template='{{ .Prompt }} "x"\n',
        parameters={"temperature": 0.5, "num_ctx": 2048, "stop": ["a", 'b"']},
        license=["first", "second"],
        adapters={"lora.gguf": ADAPTER_DIGEST},
        messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": " ho"}],
    )
    answer = show(client, "mine:7B")
    assert list(answer) == [
        "license",
        "modelfile",
        "parameters",
        "template",
        "system",
        "details",
        "messages",
        "model_info",
        "capabilities",
        "thinking",
        "modified_at",
    ]
    assert answer["license"] == "first\nsecond"
    assert answer["parameters"].split("\n") == [
        "temperature                    0.5",
        "num_ctx                        2048",
        'stop                           "a"',
        'stop                           "b\\""',
    ]
    assert answer["template"] == '{{ .Prompt }} "x"\n'
    assert answer["system"] == "Be\nbrief."
    assert answer["details"]["parent_model"] == f"{THINKING}:latest"
    assert answer["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": " ho"}]
    assert answer["model_info"]["general.basename"] == "Mine:7b"
    assert "thinking" in answer["capabilities"]
    assert answer["modelfile"] == (
        '# Modelfile generated by "ollama show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        "# FROM Mine:7b\n\n"
        f"FROM {THINKING}\n"
        "ADAPTER lora.gguf\n"
        'TEMPLATE """{{ .Prompt }} "x"\n"""\n'
        'SYSTEM "Be\nbrief."\n'
        "PARAMETER temperature 0.5\n"
        "PARAMETER num_ctx 2048\n"
        "PARAMETER stop a\n"
        'PARAMETER stop b"\n'
        "LICENSE first\n"
        "LICENSE second\n"
        "MESSAGE user hi\n"
        'MESSAGE assistant " ho"\n'
    )


def test_show_takes_system_and_options_of_the_request(client: httpx.Client) -> None:
    create(client, "mine", system="S", parameters={"seed": 1})
    answer = show(client, "mine", system="T", options={"seed": 2, "top_k": 3})
    assert answer["system"] == "T"
    assert answer["parameters"].split() == ["seed", "1"]
    assert "SYSTEM T\nPARAMETER seed 2\nPARAMETER top_k 3\n" in answer["modelfile"]
    assert show(client, CHAT, system="T")["system"] == "T"


def test_show_of_a_model_has_strings(client: httpx.Client) -> None:
    answer = show(client, CHAT)
    for key in ("license", "modelfile", "parameters", "template", "modified_at"):
        assert isinstance(answer[key], str)
    assert "system" not in answer
    assert "messages" not in answer
    assert None not in [*answer.values(), *answer["details"].values(), *answer["model_info"].values()]
    more = show(client, CHAT, verbose=True)
    assert answer["model_info"].items() <= more["model_info"].items()


def test_show_knows_the_length_of_vectors_once_there_were_some(client: httpx.Client) -> None:
    client.post("/api/embed", json={"model": EMBEDDER, "input": "hi"}).raise_for_status()
    assert show(client, EMBEDDER)["model_info"]["nomic-bert.embedding_length"] == 768


@pytest.mark.parametrize(
    ("path", "model", "rest"),
    [
        ("/v1/embeddings", EMBEDDER, {"input": "hi"}),
        ("/api/v0/chat/completions", CHAT, {"messages": HI}),
        ("/api/v1/chat", CHAT, {"input": "hi"}),
    ],
)
def test_lmstudios_own_apis_take_the_name(
    client: httpx.Client, sim: Sim, path: str, model: str, rest: dict[str, Any]
) -> None:
    create(client, "mine", model, system="not added here", parameters={"temperature": 0.5})
    assert reached(client, sim, path, rest) == {"model": model} | rest


def reached(client: httpx.Client, sim: Sim, path: str, rest: dict[str, Any]) -> dict[str, Any]:
    """Ask the alias `mine`; give the body that reached LM Studio."""
    sim.clear()
    response = client.post(path, json={"model": "mine"} | rest)
    assert response.status_code == 200, response.text
    (request,) = [request for request in sim.requests if request.method == "POST"]
    body: dict[str, Any] = json.loads(request.body)
    return body


FULL: dict[str, Any] = {
    "system": "Answer in one word.",
    "parameters": {"temperature": 0.5, "num_predict": 7, "stop": ["x"], "top_k": 3, "num_ctx": 2048},
    "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "Four."}],
}
SYSTEM = {"role": "system", "content": "Answer in one word."}
OTHER = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("path", "rest", "made"),
    [
        (
            "/v1/chat/completions",
            {"messages": HI},
            {
                "messages": [SYSTEM, *FULL["messages"], *HI],
                "temperature": 0.5,
                "top_k": 3,
                "stop": ["x"],
                "max_tokens": 7,
            },
        ),
        (
            "/v1/chat/completions",
            {"messages": [OTHER, *HI], "temperature": 0, "stop": "y", "max_completion_tokens": 5, "top_k": None},
            {
                "messages": [OTHER, *FULL["messages"], *HI],
                "temperature": 0,
                "stop": "y",
                "max_completion_tokens": 5,
                "top_k": 3,
            },
        ),
        (
            "/v1/completions",
            {"prompt": "hi", "max_tokens": 9},
            {
                "prompt": "Answer in one word.\n\n2+2?\n\nFour.\n\nhi",
                "max_tokens": 9,
                "temperature": 0.5,
                "top_k": 3,
                "stop": ["x"],
            },
        ),
        (
            "/v1/responses",
            {"input": "hi"},
            {
                "input": [*FULL["messages"], *HI],
                "instructions": "Answer in one word.",
                "temperature": 0.5,
                "max_output_tokens": 7,
            },
        ),
        (
            "/v1/responses",
            {"input": [OTHER, *HI], "temperature": 1, "max_output_tokens": 3},
            {"input": [OTHER, *FULL["messages"], *HI], "temperature": 1, "max_output_tokens": 3},
        ),
        (
            "/v1/messages",
            {"messages": HI, "max_tokens": 5},
            {
                "messages": [*FULL["messages"], *HI],
                "max_tokens": 5,
                "system": "Answer in one word.",
                "temperature": 0.5,
                "top_k": 3,
                "stop_sequences": ["x"],
            },
        ),
        (
            "/v1/messages",
            {"messages": HI, "max_tokens": 5, "system": "Be kind.", "stop_sequences": ["y"], "top_k": 1},
            {
                "messages": [*FULL["messages"], *HI],
                "max_tokens": 5,
                "system": "Be kind.",
                "stop_sequences": ["y"],
                "top_k": 1,
                "temperature": 0.5,
            },
        ),
    ],
)
def test_an_alias_is_applied_on_v1(
    client: httpx.Client, sim: Sim, path: str, rest: dict[str, Any], made: dict[str, Any]
) -> None:
    create(client, "mine", CHAT, **FULL)
    assert reached(client, sim, path, rest) == {"model": CHAT} | made


def test_an_alias_that_adds_nothing_changes_nothing(client: httpx.Client, sim: Sim) -> None:
    create(client, "mine", CHAT)
    for path, rest in (
        ("/v1/chat/completions", {"messages": HI}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/messages", {"messages": HI, "max_tokens": 5}),
    ):
        sim.clear()
        body = json.dumps({"model": "mine", **rest}, indent=3)
        assert client.post(path, content=body).status_code == 200
        assert sim.requests[-1].body == body.replace("mine", CHAT).encode()


def test_a_response_that_goes_on_has_the_messages_already(client: httpx.Client, sim: Sim) -> None:
    create(client, "mine", CHAT, **FULL)
    first = client.post("/v1/responses", json={"model": "mine", "input": "hi"}).json()["id"]
    body = reached(client, sim, "/v1/responses", {"input": "and?", "previous_response_id": first})
    assert (body["input"], body["instructions"]) == ("and?", "Answer in one word.")


def test_a_suffix_comes_alone(client: httpx.Client, sim: Sim) -> None:
    create(client, "mine", CODER, **FULL)
    body = reached(client, sim, "/v1/completions", {"prompt": "a", "suffix": "b"})
    assert (body["prompt"], body["temperature"]) == ("<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", 0.5)


def test_calls_and_images_of_an_alias_on_v1(client: httpx.Client, sim: Sim) -> None:
    call = {"function": {"name": "look", "arguments": {"a": 1}}}
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n0000").decode()
    messages = [
        {"role": "user", "content": "see", "images": [png]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "seen", "tool_name": "look"},
    ]
    create(client, "mine", CHAT, messages=messages)
    call_id = "call_00000001"
    body = reached(client, sim, "/v1/responses", {"input": "hi"})
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{png}"}
    assert body["input"] == [
        {"role": "user", "content": [{"type": "input_text", "text": "see"}, picture]},
        {"type": "function_call", "call_id": call_id, "name": "look", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": call_id, "output": "seen"},
        *HI,
    ]
    body = reached(client, sim, "/v1/messages", {"messages": HI, "max_tokens": 5})
    source = {"type": "base64", "media_type": "image/png", "data": png}
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image", "source": source}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": call_id, "name": "look", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": "seen"}]},
        *HI,
    ]
    body = reached(client, sim, "/v1/chat/completions", {"messages": HI})
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool", "user"]


def test_openai_list(client: httpx.Client, sim: Sim) -> None:
    with httpx.Client(base_url=sim.url, trust_env=False) as direct:
        own = direct.get("/v1/models")
    listed = client.get("/v1/models").json()["data"]
    create(client, "ns/Mine")
    response = client.get("/v1/models")
    assert response.headers["content-length"] == str(len(response.content))
    assert "etag" not in response.headers
    assert response.headers["content-type"] == own.headers["content-type"]
    *others, mine = response.json()["data"]
    assert others == listed
    assert [{k: v for k, v in other.items() if k != "created"} for other in others] == own.json()["data"]
    assert {k: v for k, v in mine.items() if k != "created"} == {
        "id": "ns/Mine:latest",
        "object": "model",
        "owned_by": "ns",
    }
    assert mine["created"] > 1_700_000_000
    create(client, "simple")
    assert client.get("/v1/models/simple").json()["id"] == "simple"
    assert client.get(f"/v1/models/{CHAT}").json()["id"] == CHAT
    sim.fault(path="/v1/models", html_502=True)
    assert client.get("/v1/models").status_code == 502


def test_an_alias_goes_before_a_model_of_its_name(client: httpx.Client, sim: Sim) -> None:
    create(client, CHAT, CODER, system="S")
    assert names(client).count(f"{CHAT}:latest") == 1
    body = sent(client, sim, "/api/chat", model=CHAT, messages=HI)
    assert (body["model"], body["messages"][0]["content"]) == (CODER, "S")
    assert delete(client, CHAT).status_code == 200
    assert sent(client, sim, "/api/chat", model=CHAT, messages=HI)["model"] == CHAT


# Kept


def test_aliases_outlive_a_restart_and_a_kill(start_proxy: StartProxy, sim: Sim) -> None:
    proxy = start_proxy(sim.url)
    with proxy.client() as client:
        create(client, "one", system="S", parameters={"seed": 3})
        digest = client.get("/api/tags").json()["models"][-1]["digest"]
    proxy.stop()
    proxy = start_proxy(sim.url)
    with proxy.client() as client:
        assert show(client, "one")["system"] == "S"
        create(client, "two", "one")
    proxy.process.kill()
    proxy.process.wait()
    with start_proxy(sim.url).client() as client:
        assert names(client)[-2:] == ["one:latest", "two:latest"]
        assert {entry["digest"] for entry in client.get("/api/tags").json()["models"][-2:]} == {digest}
        assert sent(client, sim, "/api/chat", model="two", messages=HI)["seed"] == 3


def test_two_proxies_share_their_aliases(start_proxy: StartProxy, sim: Sim) -> None:
    with start_proxy(sim.url).client() as one, start_proxy(sim.url).client() as two:
        create(one, "from-one", system="S")
        assert show(two, "from-one")["system"] == "S"
        create(two, "from-two", "from-one")
        assert names(one)[-2:] == ["from-one:latest", "from-two:latest"]
        assert delete(two, "from-one").status_code == 200
        assert one.post("/api/show", json={"model": "from-one"}).status_code == 404


def test_aliases_from_before_are_moved_to_the_users_data(sim: Sim, tmp_path: Path) -> None:
    """The proxy that this addon replaces kept them in the directory for caches, where blobs still are."""
    cache, data = (tmp_path / name / "ollama-lmstudio-proxy" for name in ("cache", "data"))
    cache.mkdir(parents=True)
    entry = {"name": "Terse", "source_model": "llama", "target_model_id": CHAT, "metadata": {"system_prompt": "S"}}
    (cache / "virtual_models.json").write_text(json.dumps({"Terse": entry}))
    environment = {"XDG_DATA_HOME": str(data.parent), "XDG_CACHE_HOME": str(cache.parent)}
    with Proxy(sim.url, environment=environment) as one, Proxy(sim.url, environment=environment) as two:
        one.wait_for_log(re.escape(f"the aliases are kept in {data / 'virtual_models.json'} from now on"), 5)
        with one.client() as client:
            create(client, "mine", "terse")
            assert client.post(f"/api/blobs/{ADAPTER_DIGEST}", content=ADAPTER).status_code == 201
        with two.client() as client:
            assert names(client)[-2:] == ["Terse:latest", "mine:latest"]
            assert show(client, "mine")["system"] == "S"
    assert [path.name for path in (cache / "blobs").iterdir()] == [ADAPTER_DIGEST.replace(":", "-")]
    assert set(json.loads((data / "virtual_models.json").read_text())) == {"version", "aliases"}
    assert not (cache / "virtual_models.json").exists()
    assert len(list(cache.glob("virtual_models.json.moved-*"))) == 1


def test_an_alias_whose_model_is_gone(start_proxy: StartProxy, tmp_path: Path) -> None:
    with SimThread(models=[SimModel(key="plain-7b"), SimModel(key="plain")]) as sim:
        proxy = start_proxy(sim.url)
        with proxy.client() as client:
            create(client, "mine", "plain")
        proxy.stop()
    with SimThread(models=[SimModel(key="plain-7b")]) as sim, start_proxy(sim.url).client() as client:
        assert names(client) == ["plain-7b:latest"]
        response = client.post("/api/chat", json={"model": "mine", "messages": HI})
        assert (response.status_code, response.json()) == (404, {"error": "model 'mine' not found"})
        response = client.post("/api/show", json={"model": "mine"})
        assert (response.status_code, response.json()) == (404, {"error": "model 'mine:latest' not found"})
        assert "mine" not in client.get("/v1/models").text
        assert "mine:latest" in (tmp_path / "state" / "virtual_models.json").read_text()
        assert delete(client, "mine").status_code == 200


def test_a_broken_file_is_kept_and_reported(start_proxy: StartProxy, sim: Sim, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "virtual_models.json").write_text('{"version": 1, "ali')
    proxy = start_proxy(sim.url)
    with proxy.client() as client:
        assert f"{CHAT}:latest" in names(client)
        proxy.wait_for_log(r"virtual_models\.json is broken: it is kept as virtual_models\.json\.broken-\d+T\d+Z", 5)
        create(client, "mine")
    (aside,) = (tmp_path / "state").glob("virtual_models.json.broken-*")
    assert aside.read_text() == '{"version": 1, "ali'


def test_a_state_directory_that_cannot_be_written(start_proxy: StartProxy, sim: Sim, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the way")
    with start_proxy(sim.url).client() as client:
        for stream in (True, False):
            response = client.post("/api/create", json={"model": "mine", "from": CHAT, "stream": stream})
            assert (response.status_code, response.headers["content-type"]) == (500, PLAIN_JSON)
            assert re.search("virtual_models.json cannot be written", response.json()["error"])
        response = client.post("/api/copy", json={"source": CHAT, "destination": "mine"})
        assert response.status_code == 500
        assert f"{CHAT}:latest" in names(client)
