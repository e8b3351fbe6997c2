"""The three model lists of LM Studio, and lists that are not quite right."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.lmstudio.catalog import (
    Catalog,
    Instance,
    Model,
    NotACatalog,
    ReasoningOptions,
    bare_key,
    model_type,
)
from ollama_lmstudio.lmstudio.catalog_entries import parse_catalog

GEMMA_V1 = {
    "type": "llm",
    "publisher": "google",
    "key": "google/gemma-4-26b-a4b",
    "display_name": "Gemma 4 26B A4B",
    "architecture": "gemma4",
    "quantization": {"name": "Q4_K_M", "bits_per_weight": 4},
    "size_bytes": 17990911801,
    "params_string": "26B-A4B",
    "loaded_instances": [
        {
            "id": "google/gemma-4-26b-a4b",
            "config": {"context_length": 4096, "parallel": 4},
            "remaining_ttl_seconds": 3599,
        },
        {"id": "google/gemma-4-26b-a4b:2", "config": {"context_length": 8192}},
    ],
    "max_context_length": 262144,
    "format": "gguf",
    "capabilities": {
        "vision": True,
        "trained_for_tool_use": True,
        "reasoning": {"allowed_options": ["off", "on"], "default": "on"},
    },
    "description": None,
    "variants": ["google/gemma-4-26b-a4b@q4_k_m"],
    "selected_variant": "google/gemma-4-26b-a4b@q4_k_m",
}
NOMIC_V1 = {
    "type": "embedding",
    "publisher": "nomic-ai",
    "key": "text-embedding-nomic-embed-text-v1.5",
    "display_name": "Nomic Embed Text v1.5",
    "quantization": {"name": "Q4_K_M", "bits_per_weight": 4},
    "size_bytes": 84106624,
    "params_string": None,
    "loaded_instances": [],
    "max_context_length": 2048,
    "format": "gguf",
}
QWEN_V0 = {
    "id": "qwen/qwen3.8-27b",
    "object": "model",
    "type": "vlm",
    "publisher": "qwen",
    "arch": "qwen3_8",
    "compatibility_type": "mlx",
    "quantization": "8bit",
    "state": "loaded",
    "max_context_length": 262144,
    "loaded_context_length": 131072,
    "capabilities": ["tool_use"],
}
PLAIN_V0 = {"id": "plain", "object": "model", "type": "llm", "state": "not-loaded"}


def only(payload: object) -> Model:
    (model,) = parse_catalog(payload).models
    return model


def test_v1_list_is_read_field_by_field() -> None:
    catalog = parse_catalog({"models": [GEMMA_V1, NOMIC_V1]})

    assert catalog.source == "v1"
    assert catalog.skipped == ()
    assert catalog.models == (
        Model(
            key="google/gemma-4-26b-a4b",
            type="llm",
            publisher="google",
            display_name="Gemma 4 26B A4B",
            architecture="gemma4",
            quantization="Q4_K_M",
            bits_per_weight=4,
            size_bytes=17990911801,
            params="26B-A4B",
            max_context_length=262144,
            format="gguf",
            vision=True,
            tools=True,
            reasoning=ReasoningOptions(("off", "on"), "on"),
            capabilities_known=True,
            instances=(
                Instance("google/gemma-4-26b-a4b", 4096, 3599.0),
                Instance("google/gemma-4-26b-a4b:2", 8192, None),
            ),
            variants=("google/gemma-4-26b-a4b@q4_k_m",),
            selected_variant="google/gemma-4-26b-a4b@q4_k_m",
        ),
        Model(
            key="text-embedding-nomic-embed-text-v1.5",
            type="embedding",
            publisher="nomic-ai",
            display_name="Nomic Embed Text v1.5",
            quantization="Q4_K_M",
            bits_per_weight=4,
            size_bytes=84106624,
            max_context_length=2048,
            format="gguf",
        ),
    )
    gemma, nomic = catalog.models
    assert gemma.loaded
    assert not nomic.loaded
    assert gemma.raw is GEMMA_V1
    assert gemma.instances[0].config == {"context_length": 4096, "parallel": 4}


def test_v0_list_is_read_field_by_field() -> None:
    catalog = parse_catalog({"data": [QWEN_V0, PLAIN_V0], "object": "list"})

    assert catalog.source == "v0"
    assert catalog.models == (
        Model(
            key="qwen/qwen3.8-27b",
            type="llm",
            publisher="qwen",
            architecture="qwen3_8",
            quantization="8bit",
            max_context_length=262144,
            format="mlx",
            vision=True,
            tools=True,
            capabilities_known=True,
            instances=(Instance("qwen/qwen3.8-27b", 131072),),
            state="loaded",
        ),
        Model(key="plain", vision=False, state="not-loaded"),
    )


def test_openai_list_tells_little() -> None:
    rows = [{"id": name, "object": "model"} for name in ("openai/gpt-oss-20b", "text-embedding-bge-m3")]
    catalog = parse_catalog({"data": rows, "object": "list"})

    assert catalog.source == "openai"
    assert catalog.models == (
        Model(key="openai/gpt-oss-20b"),
        Model(key="text-embedding-bge-m3", type="embedding"),
    )


@pytest.mark.parametrize(
    ("rows", "ids"),
    [
        pytest.param([("a", "loaded"), ("a:2", "loaded")], ["a", "a:2"], id="both loaded"),
        pytest.param([("a", "not-loaded"), ("a:2", "loaded")], ["a:2"], id="plain row says not loaded"),
        pytest.param([("a:2", "loaded"), ("a", "not-loaded")], ["a:2"], id="further instance first"),
        pytest.param([("a:3", "loaded")], ["a:3"], id="only the further instance is listed"),
        pytest.param([("a", "loading")], [], id="loading is not loaded"),
    ],
)
def test_v0_rows_of_one_key_are_one_model(rows: list[tuple[str, str]], ids: list[str]) -> None:
    model = only({"data": [{"id": key, "type": "llm", "state": state} for key, state in rows]})
    assert model.key == "a"
    assert [instance.id for instance in model.instances] == ids
    assert model.state == ("loaded" if ids else "loading")


def test_the_plain_v0_row_describes_the_model() -> None:
    further = {"id": "a:2", "type": "llm", "state": "loaded"}
    plain = {"id": "a", "type": "llm", "state": "not-loaded", "publisher": "p"}
    model = only({"data": [further, plain]})
    assert model.publisher == "p"
    assert model.raw is plain


def test_a_doubled_key_keeps_all_its_instances() -> None:
    """Linked devices: the same model on two machines, loaded on both under the same id."""
    rows = [
        {"key": "a", "publisher": "p", "loaded_instances": [{"id": "a"}]},
        {"key": "b"},
        {"key": "a", "loaded_instances": [{"id": "a"}, {"id": "a:2"}]},
    ]
    first, second = parse_catalog({"models": rows}).models
    assert (first.key, first.publisher, [instance.id for instance in first.instances]) == ("a", "p", ["a", "a", "a:2"])
    assert second.key == "b"


def linked(*devices: tuple[str, list[int]]) -> Model:
    """Return the model of a key that each device has in a quantization, loaded for so many tokens."""
    return only(
        {
            "models": [
                {
                    "key": "a",
                    "quantization": {"name": quantization},
                    "loaded_instances": [{"id": "a", "config": {"context_length": length}} for length in lengths],
                }
                for quantization, lengths in devices
            ]
        }
    )


def test_the_entry_of_linked_devices_is_that_of_the_one_that_answers() -> None:
    assert linked(("Q4_K_M", []), ("Q8_0", [])).quantization == "Q4_K_M"
    assert linked(("Q4_K_M", []), ("Q8_0", [4096]), ("F16", [4096])).quantization == "Q8_0"
    assert linked(("Q4_K_M", [4096]), ("Q8_0", [4096])).quantization == "Q4_K_M"


def test_the_quantizations_of_linked_devices_are_variants() -> None:
    assert linked(("Q4_K_M", []), ("Q8_0", [4096]), ("F16", [])).variants == ("a@q4_k_m", "a@q8_0", "a@f16")
    assert linked(("Q4_K_M", []), ("Q4_K_M", [4096])).variants == ()


def test_the_context_that_can_be_relied_on_is_the_shortest_of_one_id() -> None:
    model = linked(("Q4_K_M", [8192]), ("Q8_0", [4096]))
    assert (model.context_length_for("a"), model.context_length_for("unknown")) == (4096, 8192)
    further = Model("a", instances=(Instance("a", 8192), Instance("a:2", 4096)))
    assert (further.context_length_for("a"), further.context_length_for("a:2")) == (8192, 4096)
    assert Model("a").context_length_for("a") is None


DECISION = {
    "type": "decision",
    "publisher": "p",
    "key": "p/nimble",
    "decision_type": "clef",
    "has_vision_adapter": True,
    "loaded_instances": [],
    "max_context_length": None,
}


def test_a_decision_model_has_no_context_length() -> None:
    model = only({"models": [DECISION]})
    assert (model.type, model.type_name, model.vision, model.max_context_length) == ("decision", "decision", True, None)
    assert not model.capabilities_known


def test_openai_row_of_a_further_instance_is_loaded() -> None:
    model = only({"data": [{"id": "a"}, {"id": "a:2"}]})
    assert (model.key, model.instances) == ("a", (Instance("a:2"),))


def test_absent_capabilities_are_unknown_not_false() -> None:
    absent = only({"models": [{"key": "a"}]})
    empty = only({"models": [{"key": "a", "capabilities": {}}]})
    assert (absent.capabilities_known, absent.vision, absent.tools) == (False, None, None)
    assert (empty.capabilities_known, empty.vision, empty.tools) == (True, None, None)


@pytest.mark.parametrize(
    ("field", "value", "attribute", "expected"),
    [
        ("size_bytes", "12", "size_bytes", None),
        ("size_bytes", -1, "size_bytes", None),
        ("max_context_length", True, "max_context_length", None),
        ("display_name", 5, "display_name", None),
        ("quantization", "Q4_K_M", "quantization", None),
        ("quantization", {"name": None, "bits_per_weight": "4"}, "bits_per_weight", None),
        ("quantization", {"name": "Q8_0", "bits_per_weight": []}, "quantization", "Q8_0"),
        ("loaded_instances", None, "instances", ()),
        ("loaded_instances", [7, {"id": ""}, {"id": "x", "config": 3}], "instances", (Instance("x"),)),
        ("loaded_instances", [{"id": "x", "config": {"context_length": "4k"}}], "instances", (Instance("x"),)),
        ("variants", ["x@q4", None, 1], "variants", ("x@q4",)),
        ("capabilities", [], "capabilities_known", False),
        ("capabilities", {"vision": "yes"}, "vision", None),
        ("capabilities", {"reasoning": {"allowed_options": ["on", 1]}}, "reasoning", ReasoningOptions(("on",))),
        ("capabilities", {"reasoning": True}, "reasoning", None),
    ],
)
def test_an_odd_value_costs_that_value_only(field: str, value: object, attribute: str, expected: object) -> None:
    model = only({"models": [{"key": "x", "publisher": "p", field: value}]})
    assert getattr(model, attribute) == expected
    assert model.publisher == "p"


def test_an_entry_without_a_key_is_skipped_and_named() -> None:
    catalog = parse_catalog({"models": [{"type": "llm"}, {"key": " "}, {"key": 3}, "x", {"key": "good"}]})
    assert [model.key for model in catalog.models] == ["good"]
    assert catalog.skipped == tuple(f"entry {number} has no usable key" for number in range(4))


@pytest.mark.parametrize(
    "payload",
    [
        {"error": "Unexpected endpoint or method. (GET /api/v1/models)"},
        {"models": None},
        {"data": None, "object": "list"},
        {"models": [{"name": "plain:latest", "model": "plain:latest"}]},
        [],
        "models",
        None,
    ],
)
def test_what_is_not_a_list_is_said_to_be_none(payload: object) -> None:
    with pytest.raises(NotACatalog):
        parse_catalog(payload)


@pytest.mark.parametrize("payload", [{"models": []}, {"data": [], "object": "list"}])
def test_no_models_is_a_catalog_too(payload: object) -> None:
    assert parse_catalog(payload).models == ()


@pytest.mark.parametrize(
    ("key", "type_name", "expected"),
    [
        ("a", "llm", "llm"),
        ("a", "vlm", "llm"),
        ("a", "embedding", "embedding"),
        ("a", "embeddings", "embedding"),
        ("a", None, "llm"),
        ("a", "", "llm"),
        ("a", "Decision", "decision"),
        ("a", "new-kind", "other"),
        ("text-embedding-a", "new-kind", "other"),
        ("nomic-ai/Text-Embedding-nomic", None, "embedding"),
        ("text-embedding-a", "llm", "llm"),
    ],
)
def test_model_type(key: str, type_name: str | None, expected: str) -> None:
    assert model_type(key, type_name) == expected


@pytest.mark.parametrize(("key", "bare"), [("a/b", "b"), ("b", "b"), ("a/b/c", "b/c"), ("a/", "a/")])
def test_bare_key(key: str, bare: str) -> None:
    assert bare_key(key) == bare


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({*GEMMA_V1, *QWEN_V0})


@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.sampled_from(["models", "data"]))
def test_one_odd_entry_never_spoils_the_list(odd: dict[str, object], container: str) -> None:
    good = {"key": "the good one", "id": "the good one", "type": "llm"}
    keys = [model.key for model in parse_catalog({container: [odd, good]}).models]
    assert "the good one" in keys


@pytest.mark.parametrize(
    ("id_", "key"),
    [
        ("plain", "plain"),
        ("google/gemma-3-4b@q4_k_m", "google/gemma-3-4b"),
        ("google/gemma-3-4b@4bit", "google/gemma-3-4b"),
        ("PLAIN", None),
        ("pla", None),
        ("plain:latest", None),
        ("google/gemma-3-4b:2", None),
        ("google/gemma-3-4b@q8_0", None),
    ],
)
def test_exact_knows_keys_and_variants_and_nothing_near(id_: str, key: str | None) -> None:
    gemma = Model(
        "google/gemma-3-4b", variants=("google/gemma-3-4b@q4_k_m",), selected_variant="google/gemma-3-4b@4bit"
    )
    found = Catalog((gemma, Model("plain"), Model("plain-7b"))).exact(id_)
    assert (found and (found.model.key, found.id)) == (key and (key, id_))


def test_exact_prefers_a_key_to_a_variant() -> None:
    found = Catalog((Model("a", variants=("a@q4",)), Model("a@q4"))).exact("a@q4")
    assert found is not None
    assert found.model.key == "a@q4"


@pytest.mark.parametrize(
    ("id_", "key"),
    [
        ("q/one", "q/one"),
        ("Q/ONE", "q/one"),
        ("q/one@q4", "q/one"),
        ("my-name", "q/one"),
        ("q/one:2", "q/one"),
        ("q/one:3", "q/one"),
        ("two", "two"),
        ("two:2", "two"),
        ("one", None),
        ("two:latest", None),
        ("three", None),
        ("three:2", None),
        ("", None),
    ],
)
def test_an_id_has_one_owner(id_: str, key: str | None) -> None:
    instances = (Instance("my-name"), Instance("q/one:2"))
    catalog = Catalog((Model("q/one", instances=instances, variants=("q/one@q4",)), Model("two")))
    owner = catalog.owner(id_)
    assert (owner.key if owner else None) == key


def loaded_for(*lengths: int | None) -> list[dict[str, Any]]:
    return [{"id": f"m:{number}", "config": {"context_length": length}} for number, length in enumerate(lengths, 1)]


@pytest.mark.parametrize(
    ("instances", "id_", "expected"),
    [
        (loaded_for(4096), "m", 4096),
        (loaded_for(4096), "m@q8_0", 4096),
        (loaded_for(4096), "other", 0),
        (loaded_for(), "m", 0),
        (loaded_for(None), "m", 0),
        (loaded_for(4096, 4096), "m", 4096),
        (loaded_for(4096, 8192), "m", 0),
        (loaded_for(4096, 8192), "m:2", 8192),
    ],
)
def test_for_how_many_tokens_a_model_is_loaded(instances: list[dict[str, Any]], id_: str, expected: int) -> None:
    row = {"key": "m", "variants": ["m@q8_0"], "loaded_instances": instances}
    assert parse_catalog({"models": [row]}).context_length(id_) == expected
