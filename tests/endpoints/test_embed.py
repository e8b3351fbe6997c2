"""/api/embed and /api/embeddings: the call, its answer, and errors."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from ollama_lmstudio.endpoints.embed import embed
from ollama_lmstudio.endpoints.embeddings import embeddings
from ollama_lmstudio.lmstudio.catalog import Instance, Model
from ollama_lmstudio.lmstudio.errors import LMStudioError, LMStudioUnreachable
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.outcomes import Call, Request, Response
from ollama_lmstudio.services import Services

MakeServices = Callable[..., Services]

BERT = Model("text-embedding-bert", type="embedding", max_context_length=4, instances=(Instance("i"),))
ENDPOINTS = {"/api/embed": embed, "/api/embeddings": embeddings}


def ask(path: str, body: dict[str, Any], services: Services) -> Response | Call:
    return asyncio.run(ENDPOINTS[path](Request("POST", path, "", {}, json.dumps(body).encode(), 0), services))


def call(path: str, body: dict[str, Any], services: Services) -> tuple[Call, dict[str, Any]]:
    made = ask(path, {"model": "bert"} | body, services)
    assert isinstance(made, Call)
    return made, json.loads(made.body)


def vectors(*rows: Any) -> bytes:
    return json.dumps({"data": [{"index": n, "embedding": row} for n, row in enumerate(rows)]}).encode()


def answered(made: Call, body: bytes, status: int = 200) -> tuple[int, dict[str, Any]]:
    answer = made.translation.translate(status, "application/json", body, 2_000_000_000)
    return answer.status, json.loads(answer.body)


def test_embed(make_services: MakeServices) -> None:
    made, body = call("/api/embed", {"input": ["a b", "c"], "keep_alive": "90s"}, make_services(BERT))
    assert (made.path, made.model, made.asked) == ("/v1/embeddings", BERT.key, "bert")
    assert body == {"model": BERT.key, "input": ["a b", "c"], "ttl": 90}
    status, answer_body = answered(made, vectors([3, 4], [0, -2]))
    assert status == 200
    assert list(answer_body) == ["model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"]
    assert answer_body == {
        "model": "bert",
        "embeddings": [[0.6, 0.8], [0, -1]],
        "total_duration": 2_000_000_000,
        "load_duration": 1_000_000_000,
        "prompt_eval_count": 3,
    }


@pytest.mark.parametrize(
    ("usage", "count"),
    [
        ({"prompt_tokens": 9, "total_tokens": 9}, 9),
        ({"total_tokens": 9}, 9),
        ({"prompt_tokens": 0, "total_tokens": 0}, 3),
        ({"prompt_tokens": "9"}, 3),
        (None, 3),
    ],
)
def test_lm_studios_count_goes_before_the_lower_bound(usage: Any, count: int, make_services: MakeServices) -> None:
    made, _ = call("/api/embed", {"input": ["a b", "c"]}, make_services(BERT))
    body = json.loads(vectors([3, 4], [0, -2])) | {"usage": usage}
    assert answered(made, json.dumps(body).encode())[1]["prompt_eval_count"] == count
    assert made.translation.measured().metrics.prompt_eval_count == count


@pytest.mark.parametrize(
    ("texts", "num_ctx", "refused"),
    [
        ("a b c", 2, True),
        ("a b c", 3, False),
        ("a b c", 0, False),
        ("a b c", None, False),
        ("a b c d e", 100, True),
        (["a", "a b c"], 2.9, True),
    ],
)
def test_what_is_too_long_for_num_ctx(
    texts: str | list[str], num_ctx: float | None, refused: bool, make_services: MakeServices
) -> None:
    body = {"input": texts, "options": {"num_ctx": num_ctx}}
    call("/api/embed", body, make_services(BERT))
    if refused:
        with pytest.raises(OllamaError, match="the input length exceeds the context length"):
            call("/api/embed", body | {"truncate": False}, make_services(BERT))
    else:
        call("/api/embed", body | {"truncate": False}, make_services(BERT))


@pytest.mark.parametrize(
    ("given", "status"),
    [({}, 400), ({"truncate": True}, 200), ({"input": ["a b", "a b"]}, 200), ({"options": {"num_ctx": 3}}, 200)],
)
def test_what_lm_studio_counts_to_be_too_long(given: dict[str, Any], status: int, make_services: MakeServices) -> None:
    body = {"input": "a b", "truncate": False, "options": {"num_ctx": 2}} | given
    made, sent = call("/api/embed", body, make_services(BERT))
    told = json.loads(vectors(*([1] for _ in sent["input"]))) | {"usage": {"prompt_tokens": 3}}
    found, answer = answered(made, json.dumps(told).encode())
    assert found == status
    assert (answer.get("error") == "the input length exceeds the context length") is (status == 400)


def test_one_text_is_a_list_of_one(make_services: MakeServices) -> None:
    made, body = call("/api/embed", {"input": "a", "dimensions": 1}, make_services(BERT))
    assert body["input"] == ["a"]
    assert answered(made, vectors([3, 4]))[1]["embeddings"] == [[1]]


def test_an_empty_text_in_a_list_is_a_text(make_services: MakeServices) -> None:
    made, body = call("/api/embed", {"input": [""]}, make_services(BERT))
    assert body["input"] == [""]
    assert answered(made, vectors([0, 0]))[1]["embeddings"] == [[0, 0]]


def test_vectors_are_put_in_the_order_of_the_inputs(make_services: MakeServices) -> None:
    made, _ = call("/api/embed", {"input": ["a", "b"]}, make_services(BERT))
    rows = [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0]}]
    assert answered(made, json.dumps({"data": rows}).encode())[1]["embeddings"] == [[1, 0], [0, 1]]


def test_embeddings_are_as_the_model_gives_them(make_services: MakeServices) -> None:
    made, body = call("/api/embeddings", {"prompt": "a b"}, make_services(BERT))
    assert body == {"model": BERT.key, "input": ["a b"]}
    assert answered(made, vectors([3.5, 0.5670403838157654])) == (200, {"embedding": [3.5, 0.5670403838157654]})


@pytest.mark.parametrize(
    ("path", "body", "answer_body"),
    [
        ("/api/embed", {"input": ""}, {"model": "bert", "embeddings": []}),
        ("/api/embed", {"input": []}, {"model": "bert", "embeddings": []}),
        ("/api/embed", {"input": None}, {"model": "bert", "embeddings": []}),
        ("/api/embed", {}, {"model": "bert", "embeddings": []}),
        ("/api/embeddings", {}, {"embedding": []}),
        ("/api/embeddings", {"prompt": ""}, {"embedding": []}),
    ],
)
@pytest.mark.parametrize("loaded", [True, False])
def test_nothing_to_embed_loads_the_model(
    path: str, body: dict[str, Any], answer_body: dict[str, Any], loaded: bool, make_services: MakeServices
) -> None:
    services = make_services(BERT if loaded else Model(BERT.key, type="embedding"))
    answer = ask(path, {"model": "bert"} | body, services)
    assert isinstance(answer, Response)
    assert json.loads(answer.body) == answer_body
    assert services.client.uses == ([] if loaded else [BERT.key])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/api/embed", {"model": "", "input": "a"}, 404, "model '' not found"),
        ("/api/embed", {"model": "x", "input": "a"}, 404, 'model "x" not found, try pulling it first'),
        ("/api/embed", {"model": "a b", "input": "a"}, 400, "invalid model name"),
        # The input is looked at before the model.
        ("/api/embed", {"model": "x", "input": 5}, 400, "invalid input type"),
        ("/api/embed", {"model": "x", "input": [1, 2]}, 400, "invalid input type"),
        ("/api/embed", {"model": "x", "input": {"a": 1}}, 400, "invalid input type"),
        (
            "/api/embed",
            {"model": "bert", "input": ["a", "a b c d e"], "truncate": False},
            400,
            "the input length exceeds the context length",
        ),
        (
            "/api/embed",
            {"model": "bert", "input": "a", "options": {"num_ctx": "x"}},
            500,
            'option "num_ctx" must be of type integer',
        ),
        ("/api/embeddings", {"prompt": "a"}, 400, "model is required"),
        ("/api/embeddings", {"model": "x", "prompt": "a"}, 404, 'model "x" not found, try pulling it first'),
    ],
)
def test_errors(path: str, body: dict[str, Any], status: int, message: str, make_services: MakeServices) -> None:
    with pytest.raises(OllamaError) as caught:
        ask(path, body, make_services(BERT))
    assert (caught.value.status, caught.value.message) == (status, message)


@pytest.mark.parametrize("truncate", [True, None])
def test_a_long_input_is_cut_unless_that_is_refused(truncate: bool | None, make_services: MakeServices) -> None:
    call("/api/embed", {"input": "a b c d e", "truncate": truncate}, make_services(BERT))
    call("/api/embed", {"input": "a b c d", "truncate": False}, make_services(BERT))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"not JSON",
        b'{"error":"Unexpected endpoint or method. (POST /v1/embeddings)"}',
        b'{"data":[]}',
        b'{"data":5}',
        b'{"data":[5]}',
        b'{"data":[{"index":0}]}',
        b'{"data":[{"index":0,"embedding":null}]}',
        b'{"data":[{"index":0,"embedding":["x"]}]}',
        b'{"data":[{"embedding":[1]}]}',
        b'{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1]}]}',
        b'{"data":[{"index":0,"embedding":[1' + b"0" * 400 + b"]}]}",
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("path", ENDPOINTS)
def test_what_is_no_answer_is_an_error(path: str, body: bytes, make_services: MakeServices) -> None:
    made, _ = call(path, {"input": "a", "prompt": "a"}, make_services(BERT))
    status, answer_body = answered(made, body)
    assert status == (502 if path == "/api/embed" else 500)
    assert list(answer_body) == ["error"]
    assert answer_body["error"]


@pytest.mark.parametrize(
    "body",
    [
        vectors([math.nan, 1]),
        vectors([math.inf, 1]),
        vectors([math.inf, -math.inf]),
        vectors([1e154] * 40 + [math.nan]),
    ],
)
@pytest.mark.parametrize(("path", "status"), [("/api/embed", 400), ("/api/embeddings", 500)])
def test_vectors_that_are_not_finite(path: str, status: int, body: bytes, make_services: MakeServices) -> None:
    made, _ = call(path, {"input": "a", "prompt": "a"}, make_services(BERT))
    assert answered(made, body) == (status, {"error": "embedding contains NaN or Inf values"})


@pytest.mark.parametrize(
    ("path", "status", "expected"), [("/api/embed", 400, 400), ("/api/embed", 500, 500), ("/api/embeddings", 400, 500)]
)
def test_lm_studios_own_errors(path: str, status: int, expected: int, make_services: MakeServices) -> None:
    made, _ = call(path, {"input": "a", "prompt": "a"}, make_services(BERT, lmstudio_token="hunter2"))
    assert answered(made, b'{"error":"no, hunter2"}', status) == (expected, {"error": "no, ***"})


@pytest.mark.parametrize("path", ENDPOINTS)
def test_when_lm_studio_is_gone(path: str, make_services: MakeServices) -> None:
    made, _ = call(path, {"input": "a", "prompt": "a"}, make_services(BERT))
    assert made.translation.fail(LMStudioUnreachable("http://h")).status == 503
    assert made.translation.fail(LMStudioError(502, "broken")).status == (502 if path == "/api/embed" else 500)


def test_a_model_is_in_use_until_its_call_has_ended(make_services: MakeServices) -> None:
    services = make_services(BERT)
    made = [call("/api/embed", {"input": "a"}, services)[0] for _ in range(2)]
    key = made[0].model
    assert services.lifetimes.active_requests(key) == 2
    for each in made:
        assert each.release is not None
        each.release()
    assert services.lifetimes.active_requests(key) == 0
