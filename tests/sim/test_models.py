"""The lists of models, explicit loads, downloads, and the token."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ollama_lmstudio.sim import Sim, SimDownload, SimModel, SimThread, embedder, gpt_oss

from .conftest import CHAT, Clock, Connect, user

LOAD, UNLOAD, DOWNLOAD = "/api/v1/models/load", "/api/v1/models/unload", "/api/v1/models/download"


def test_the_native_list(connect: Connect, clock: Clock) -> None:
    models = [
        gpt_oss(variants=("openai/gpt-oss-20b@mxfp4",), display_name="GPT OSS 20B"),
        embedder(),
    ]
    with SimThread(models, clock=clock) as sim:
        sim.load("openai/gpt-oss-20b", jit=True, context_length=4096)
        clock.now = 1.5
        wire = connect(sim)
        reply = wire.call("GET", "/api/v1/models")
        assert reply.json == {
            "models": [
                {
                    "type": "llm",
                    "publisher": "openai",
                    "key": "openai/gpt-oss-20b",
                    "display_name": "GPT OSS 20B",
                    "architecture": "gpt-oss",
                    "quantization": {"name": "MXFP4", "bits_per_weight": 4},
                    "size_bytes": 12109566560,
                    "params_string": "20B",
                    "loaded_instances": [
                        {
                            "id": "openai/gpt-oss-20b",
                            "config": {
                                "context_length": 4096,
                                "eval_batch_size": 512,
                                "parallel": 4,
                                "flash_attention": True,
                                "offload_kv_cache_to_gpu": True,
                                "reasoning_budget_message": "",
                            },
                            "remaining_ttl_seconds": 3598,
                        }
                    ],
                    "max_context_length": 131072,
                    "format": "gguf",
                    "capabilities": {
                        "vision": False,
                        "trained_for_tool_use": True,
                        "reasoning": {"allowed_options": ["low", "medium", "high"], "default": "low"},
                    },
                    "description": None,
                    "variants": ["openai/gpt-oss-20b@mxfp4"],
                    "selected_variant": "openai/gpt-oss-20b@mxfp4",
                },
                {
                    "type": "embedding",
                    "publisher": "nomic-ai",
                    "key": "text-embedding-nomic-embed-text-v1.5",
                    "display_name": "Text Embedding Nomic Embed Text V1.5",
                    "quantization": {"name": "Q4_K_M", "bits_per_weight": 4},
                    "size_bytes": 84106624,
                    "params_string": None,
                    "loaded_instances": [],
                    "max_context_length": 2048,
                    "format": "gguf",
                },
            ]
        }
        keys = re.findall(r'^ {6}"(\w+)"', reply.body.decode(), re.MULTILINE)
        assert keys[:15] == list(reply.json["models"][0])


def test_what_the_native_list_leaves_out(connect: Connect) -> None:
    models = [
        SimModel("unknown", capabilities_known=False, quantization=None),
        SimModel("mlx", format="mlx", loaded=True),
    ]
    with SimThread(models, version="0.4.21") as sim:
        sim.load("unknown", jit=True)
        unknown, mlx = connect(sim).call("GET", "/api/v1/models").json["models"]
        assert "capabilities" not in unknown
        assert unknown["quantization"] is None
        assert "remaining_ttl_seconds" not in unknown["loaded_instances"][0]
        assert "reasoning_budget_message" not in unknown["loaded_instances"][0]["config"]
        assert mlx["loaded_instances"] == [{"id": "mlx", "config": {"context_length": 131072, "parallel": 4}}]


def test_the_v0_list(connect: Connect) -> None:
    models = [SimModel("pub/see", vision=True, max_context_length=4096), SimModel("b", tools=False), embedder("e")]
    with SimThread(models) as sim:
        sim.load("pub/see")
        sim.load("pub/see", context_length=99)
        wire = connect(sim)
        reply = wire.call("GET", "/api/v0/models")
        assert list(reply.json) == ["data", "object"]
        see, second, plain, embedding = reply.json["data"]
        assert see == {
            "id": "pub/see",
            "object": "model",
            "type": "vlm",
            "publisher": "pub",
            "arch": "llama",
            "compatibility_type": "gguf",
            "quantization": "Q4_K_M",
            "state": "loaded",
            "max_context_length": 4096,
            "loaded_context_length": 4096,
            "capabilities": ["tool_use"],
        }
        assert list(see)[:4] == ["id", "object", "type", "publisher"]
        assert (second["id"], second["loaded_context_length"]) == ("pub/see:2", 99)
        assert (plain["type"], plain["state"], "capabilities" in plain) == ("llm", "not-loaded", False)
        assert "loaded_context_length" not in plain
        assert embedding["type"] == "embeddings"
        sim.unload("pub/see")
        states = {row["id"]: row["state"] for row in wire.call("GET", "/api/v0/models").json["data"]}
        assert states == {"pub/see": "not-loaded", "pub/see:2": "loaded", "b": "not-loaded", "e": "not-loaded"}


def test_one_model(connect: Connect) -> None:
    with SimThread([SimModel("pub/a", variants=("pub/a@q4_k_m",))]) as sim:
        wire = connect(sim)
        assert wire.call("GET", "/v1/models/pub/a").json == {
            "id": "pub/a",
            "object": "model",
            "owned_by": "organization_owner",
        }
        assert wire.call("GET", "/api/v0/models/pub%2Fa").json["type"] == "llm"
        missing = wire.call("GET", "/v1/models/test")
        assert (missing.status, missing.body) == (404, b'{"error":"Model with identifier \'test\' not found"}')
        missing = wire.call("GET", "/api/v0/models/pub/a@q4_k_m")
        assert (missing.status, missing.json["error"]["code"]) == (404, "model_not_found")


def test_without_loads_on_demand_only_what_is_loaded_is_listed(connect: Connect) -> None:
    with SimThread([SimModel("a"), SimModel("b")], jit=False) as sim:
        wire = connect(sim)
        assert wire.call("GET", "/v1/models").body == b'{\n  "data": [],\n  "object": "list"\n}'
        sim.load("b")
        sim.load("b")
        assert [item["id"] for item in wire.call("GET", "/v1/models").json["data"]] == ["b", "b:2"]


# Loads


def test_an_explicit_load(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    body = {"model": "plain", "context_length": 16384, "flash_attention": False, "echo_load_config": True}
    reply = wire.call("POST", LOAD, body)
    assert reply.json == {
        "type": "llm",
        "instance_id": "plain",
        "load_time_seconds": 0,
        "status": "loaded",
        "load_config": {
            "context_length": 16384,
            "eval_batch_size": 512,
            "flash_attention": False,
            "offload_kv_cache_to_gpu": True,
        },
    }
    (instance,) = wire.call("GET", "/api/v1/models").json["models"][0]["loaded_instances"]
    assert "remaining_ttl_seconds" not in instance
    assert instance["config"]["flash_attention"] is False
    assert wire.call("POST", LOAD, {"model": "plain"}).json["instance_id"] == "plain:2", "loads are not idempotent"


def test_an_embedding_load_echoes_its_context_only(sim: Sim, connect: Connect) -> None:
    body = {"model": "text-embedding-nomic-embed-text-v1.5", "echo_load_config": True}
    reply = connect(sim).call("POST", LOAD, body).json
    assert (reply["type"], reply["load_config"]) == ("embedding", {"context_length": 2048})


def test_loads_that_fail(connect: Connect) -> None:
    models = [SimModel("big", load_outcome="guardrail"), SimModel("bad", load_outcome="crash")]
    with SimThread(models) as sim:
        wire = connect(sim)
        missing = wire.call("POST", LOAD, {"model": "nobody"})
        assert missing.status == 404
        assert missing.json == {
            "error": {"type": "model_not_found", "message": "Model nobody not found in downloaded models"}
        }
        refused = wire.call("POST", LOAD, {"model": "big"})
        assert (refused.status, refused.json["error"]["type"]) == (500, "model_load_failed")
        assert "insufficient system resources" in refused.json["error"]["message"]
        refused = wire.call("POST", CHAT, {**user(), "model": "bad"})
        assert refused.status == 400
        assert refused.json["error"]["message"] == (
            'Failed to load model "bad". Error: Engine protocol runtime llama-server for bad exited before becoming '
            "healthy. exitCode=1, signal=null"
        )
        assert refused.body.startswith(b'{\n    "error"')


def test_unload_wants_the_id_of_an_instance(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    sim.load("plain")
    missing = wire.call("POST", UNLOAD, {"instance_id": "PLAIN"})
    assert (missing.status, missing.json["error"]["type"]) == (404, "model_not_found")
    assert wire.call("POST", UNLOAD, {"model": "plain"}).status == 400
    assert wire.call("POST", UNLOAD, {"instance_id": "plain"}).body == b'{\n  "instance_id": "plain"\n}'
    assert sim.instances == []


@pytest.mark.parametrize("path", [LOAD, UNLOAD, DOWNLOAD, "/api/v1/chat"])
def test_native_routes_refuse_other_keys_and_broken_json(sim: Sim, connect: Connect, path: str) -> None:
    wire = connect(sim)
    body = {"model": "plain", "instance_id": "x", "input": "x", "keep_alive": 5}
    reply = wire.call("POST", path, {key: body[key] for key in body if path != UNLOAD or key != "model"})
    assert reply.status == 400
    assert reply.json["error"]["code"] == "unrecognized_keys"
    assert "'keep_alive'" in reply.json["error"]["message"]
    assert wire.call("POST", path, b"{").json["error"]["code"] == "invalid_json"


def test_downloads(connect: Connect, clock: Clock) -> None:
    with SimThread([SimModel("here")], downloads=[SimDownload("ibm/granite", 100, seconds=10)], clock=clock) as sim:
        wire = connect(sim)
        assert wire.call("POST", DOWNLOAD, {"model": "here"}).json == {"status": "already_downloaded"}
        refused = wire.call("POST", DOWNLOAD, {"model": "ibm/granite", "quantization": "Q4_K_M"})
        assert refused.json["error"]["param"] == "quantization"
        started = wire.call("POST", DOWNLOAD, {"model": "ibm/granite"}).json
        assert list(started) == ["job_id", "status", "total_size_bytes", "started_at"]
        path = f"{DOWNLOAD}/status/{started['job_id']}"
        clock.now = 5
        assert wire.call("GET", path).json["downloaded_bytes"] == 50
        clock.now = 10
        assert wire.call("GET", path).json["status"] == "completed"
        assert wire.call("POST", CHAT, {**user(), "model": "ibm/granite"}).json["model"] == "ibm/granite"
        assert wire.call("GET", f"{DOWNLOAD}/status/job_x").status == 404


# Tokens

TOKEN = "sk-lm-abcdefgh:abcdefghijklmnopqrst"
MISSING = "An LM Studio API token is required to make requests to this server, but none was provided"


def ask(connect: Connect, sim: Sim, headers: str, path: str = "/v1/models") -> Any:
    return connect(sim).call("GET", path, headers=headers)


def test_tokens(connect: Connect) -> None:
    with SimThread([SimModel("a")], auth={TOKEN}) as sim:
        assert ask(connect, sim, f"Authorization: Bearer {TOKEN}\r\n").status == 200
        for headers in ("", "Authorization: Basic eDp5\r\n", f"x-api-key: {TOKEN}\r\n"):
            reply = ask(connect, sim, headers)
            assert reply.status == 401
            error = reply.json["error"]
            assert list(error) == ["type", "code", "message"]
            assert (error["type"], error["code"]) == ("invalid_request", "invalid_api_key")
            assert error["message"].startswith(MISSING)
        reply = ask(connect, sim, "Authorization: Bearer sk-bogus-EVERYTHING\r\n")
        assert reply.status == 401
        assert reply.json["error"]["message"] == (
            "Malformed LM Studio API token provided: sk-bogus-E**************. Ensure you are using a valid token."
        )
        assert ask(connect, sim, "", "/x").status == 401
        assert ask(connect, sim, "", "/lmstudio-greeting").status == 200
        body = {"model": "a", "messages": [{"role": "user", "content": "x"}]}
        assert connect(sim).call("POST", "/v1/messages", body, f"x-api-key: {TOKEN}\r\n").status == 200
        sim.set(auth=set())
        assert ask(connect, sim, f"Authorization: Bearer {TOKEN}\r\n").status == 401


def test_without_tokens_any_header_will_do(sim: Sim, connect: Connect) -> None:
    assert ask(connect, sim, "Authorization: Bearer lm-studio\r\n").status == 200
