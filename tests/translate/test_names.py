"""Names as clients write them, and the model each one must and must not mean."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.catalog import Catalog, Instance, Model
from ollama_lmstudio.translate import names
from ollama_lmstudio.translate.names import Resolver, ollama_name


def resolver(*models: Model | str) -> Resolver:
    return Resolver(Catalog(tuple(Model(model) if isinstance(model, str) else model for model in models)))


def loaded(key: str) -> Model:
    return Model(key, instances=(Instance(key),))


def resolved_id(resolver: Resolver, name: str) -> str | None:
    found = resolver.resolve(name)
    return found.id if found else None


HOUSE = resolver(
    "openai/gpt-oss-20b",
    "llama-3.1-8b-instruct",
    "plain",
    Model("text-embedding-nomic-embed-text-v1.5", type="embedding", publisher="nomic-ai"),
    "qwen3-4b-thinking-2507",
    "qwen3-4b",
    "qwen3-14b",
    "qwen3-1.7b",
    "mistral-7b@q4_k_m",
    "mistral-7b@q8_0",
    Model(
        "google/gemma-3-4b",
        publisher="google",
        quantization="Q4_K_M",
        instances=(Instance("google/gemma-3-4b"), Instance("google/gemma-3-4b:2"), Instance("My-Gemma")),
        variants=("google/gemma-3-4b@q4_k_m", "google/gemma-3-4b@4bit"),
        selected_variant="google/gemma-3-4b@4bit",
    ),
    Model("solar", publisher="lmstudio-community", quantization="Q8_0"),
    "z.ai/glm-4.6",
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # as it is written
        ("openai/gpt-oss-20b", "openai/gpt-oss-20b"),
        ("OpenAI/GPT-OSS-20B", "openai/gpt-oss-20b"),
        ("openai/gpt-oss-20b:latest", "openai/gpt-oss-20b"),
        ("gpt-oss-20b", "openai/gpt-oss-20b"),
        ("gpt-oss-20b:LATEST", "openai/gpt-oss-20b"),
        ("  plain\n", "plain"),
        ("library/plain", "plain"),
        ("registry.ollama.ai/library/plain:latest", "plain"),
        ("https://registry.ollama.ai/library/plain", "plain"),
        ("registry.local:5000/library/plain", "plain"),
        ("hf.co/lmstudio-community/solar", "solar"),
        ("lmstudio-community/solar", "solar"),
        ("z.ai/glm-4.6", "z.ai/glm-4.6"),
        # variants
        ("google/gemma-3-4b:q4_k_m", "google/gemma-3-4b@q4_k_m"),
        ("google/gemma-3-4b@Q4_K_M", "google/gemma-3-4b@q4_k_m"),
        ("gemma-3-4b:4bit", "google/gemma-3-4b@4bit"),
        ("gemma-3-4b:q8_0", None),
        ("mistral-7b:q4_k_m", "mistral-7b@q4_k_m"),
        ("mistral-7b:Q8_0", "mistral-7b@q8_0"),
        ("solar:q8_0", "solar"),
        ("solar:q4_0", None),
        # instances
        ("google/gemma-3-4b:2", "google/gemma-3-4b:2"),
        ("gemma-3-4b:2", "google/gemma-3-4b:2"),
        ("my-gemma", "My-Gemma"),
        ("gemma-3-4b:3", None),
        # letters and digits
        ("gpt-oss:20b", "openai/gpt-oss-20b"),
        ("openai/gpt-oss:20b", "openai/gpt-oss-20b"),
        ("registry.ollama.ai/library/gpt-oss:20b", "openai/gpt-oss-20b"),
        ("gemma3:4b", "google/gemma-3-4b"),
        ("gemma3:4b-q4_K_M", "google/gemma-3-4b@q4_k_m"),
        ("qwen3:4b", "qwen3-4b"),
        ("qwen3:14b", "qwen3-14b"),
        ("qwen3:1.7b", "qwen3-1.7b"),
        ("nomic-embed-text:v1.5", "text-embedding-nomic-embed-text-v1.5"),
        ("nomic-ai/nomic-embed-text-v1.5", "text-embedding-nomic-embed-text-v1.5"),
        # beginnings
        ("llama3.1:8b", "llama-3.1-8b-instruct"),
        ("llama3.1", "llama-3.1-8b-instruct"),
        ("nomic-embed-text", "text-embedding-nomic-embed-text-v1.5"),
        ("qwen3:4b-thinking", "qwen3-4b-thinking-2507"),
        # what must not be found
        ("gpt-4", None),
        ("gpt-oss:120b", None),
        ("gpt-oss:2", None),
        ("llama3.1:8", None),
        ("llama3.1:70b", None),
        ("llama3", None),
        ("plai", None),
        ("plain:7b", None),
        ("plains", None),
        ("qwen3:1", None),
        ("qwen3.1:7b", None),
        ("qwen:34b", None),
        ("microsoft/gpt-oss-20b", None),
        ("someone/solar", None),
        ("qwen3", None),
        ("mistral-7b", None),
        ("", None),
        (":", None),
        ("/", None),
        ("---", None),
        ("library/", None),
        (":latest", None),
    ],
)
def test_what_a_name_means(name: str, expected: str | None) -> None:
    assert resolved_id(HOUSE, name) == expected


REPOSITORIES = resolver(
    Model("qwen3-4b-instruct-2507", publisher="unsloth", quantization="Q4_K_M"),
    Model("gemma-4-26b-a4b-it-qat@q4_k_xl", publisher="unsloth", quantization="Q4_K_XL"),
    Model("gemma-4-26b-a4b-it-qat@q8_0", publisher="unsloth", quantization="Q8_0"),
    Model("qwen3-8b-mlx-4bit", publisher="lmstudio-community", quantization="4bit"),
    Model("odd-gguf", publisher="owner"),
    Model("odd", publisher="other"),
)
QWEN = "qwen3-4b-instruct-2507"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf.co/unsloth/Qwen3-4B-Instruct-2507-GGUF:Q4_K_M", QWEN),
        ("hf.co/unsloth/Qwen3-4B-Instruct-2507-GGUF", QWEN),
        ("hf.co/unsloth/Qwen3-4B-Instruct-2507-GGUF:latest", QWEN),
        ("https://huggingface.co/unsloth/Qwen3-4B-Instruct-2507-GGUF:q4_k_m", QWEN),
        ("unsloth/Qwen3-4B-Instruct-2507-GGUF", QWEN),
        ("unsloth/qwen3-4b-instruct-2507-gguf@q4_k_m", QWEN),
        ("hf.co/unsloth/qwen3-4b-instruct-2507:q4_k_m", QWEN),
        ("hf.co/unsloth/gemma-4-26B-A4B-it-qat-GGUF:UD-Q4_K_XL", "gemma-4-26b-a4b-it-qat@q4_k_xl"),
        ("hf.co/unsloth/gemma-4-26B-A4B-it-qat-GGUF:Q8_0", "gemma-4-26b-a4b-it-qat@q8_0"),
        ("hf.co/lmstudio-community/Qwen3-8B-MLX-4bit", "qwen3-8b-mlx-4bit"),
        ("hf.co/owner/odd-GGUF", "odd-gguf"),
        # another publisher, another quantization, another repository
        ("hf.co/bartowski/Qwen3-4B-Instruct-2507-GGUF:Q4_K_M", None),
        ("hf.co/unsloth/Qwen3-4B-Instruct-2507-GGUF:Q8_0", None),
        ("hf.co/unsloth/Qwen3-4B-GGUF", None),
        ("hf.co/unsloth/Qwen3-4B", None),
        ("unsloth/Qwen3-4B-GGUF", None),
        ("hf.co/unsloth/gemma-4-26B-A4B-it-qat-GGUF:UD-Q8_0", None),
        ("hf.co/unsloth/gemma-4-26B-A4B-it-qat-GGUF", None),
        ("hf.co/lmstudio-community/Qwen3-8B-GGUF", None),
        ("-GGUF", None),
        ("unsloth/-GGUF", None),
    ],
)
def test_what_the_name_of_a_repository_means(name: str, expected: str | None) -> None:
    assert resolved_id(REPOSITORIES, name) == expected


def test_numbers_side_by_side_do_not_run_together() -> None:
    assert resolved_id(resolver("qwen-34b"), "qwen3:4b") is None
    assert resolved_id(resolver("llama-3-18b"), "llama3.1:8b") is None


def test_a_dot_in_a_number_is_not_a_separator() -> None:
    assert resolved_id(resolver("qwen2.5-7b"), "qwen2") is None
    assert resolved_id(resolver("phi-3.8b"), "phi3:8b") is None


@pytest.mark.parametrize(
    ("models", "name", "expected"),
    [
        (["a/x", "b/x"], "x", None),
        ([loaded("a/x"), "b/x"], "x", "a/x"),
        (["a/x", loaded("b/x")], "x", "b/x"),
        ([loaded("a/x"), loaded("b/x")], "x", None),
        ([loaded("a/x"), "b/x"], "b/x", "b/x"),
        ([loaded("a/x"), "x"], "x", "x"),
        (["m-7b-instruct", "m-7b-base"], "m:7b", None),
        (["m-7b-instruct", loaded("m-7b-base")], "m:7b", "m-7b-base"),
        ([loaded("m-7b-instruct"), "m-7b"], "m:7b", "m-7b"),
        (["m-7b", "m_7b"], "m:7b", None),
        (["m-7b", loaded("m_7b")], "m:7b", "m_7b"),
    ],
)
def test_of_several_models_only_the_one_loaded_is_taken(
    models: list[Model | str], name: str, expected: str | None
) -> None:
    assert resolved_id(resolver(*models), name) == expected


def test_a_key_of_its_own_is_preferred_to_a_variant_of_that_name() -> None:
    parent, own = Model("x", variants=("x@q4",)), Model("x@q4")
    found = resolver(parent, own).resolve("x:q4")
    assert found is not None
    assert found.model is own


def test_a_key_is_preferred_to_an_instance_of_that_id() -> None:
    other = Model("other", instances=(Instance("x"),))
    found = resolver(other, "x").resolve("x")
    assert found is not None
    assert found.model.key == "x"


def test_an_instance_number_is_not_read_as_letters() -> None:
    models = Model("phi", instances=(Instance("phi:2"),)), Model("phi-2")
    assert resolved_id(resolver(*models), "phi2") == "phi-2"


def test_the_type_of_a_model_does_not_matter() -> None:
    found = resolver(Model("bge-m3", type="embedding")).resolve("bge-m3")
    assert found is not None
    assert found.model.type == "embedding"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("plain", "plain:latest"),
        ("openai/gpt-oss-20b", "openai/gpt-oss-20b:latest"),
        ("qwen3-4b@q4_k_m", "qwen3-4b:q4_k_m"),
        ("google/gemma-3-4b@4bit", "google/gemma-3-4b:4bit"),
        ("minimax@cloud", "minimax-cloud:latest"),
        ("minimax@120b-Cloud", "minimax-120b-Cloud:latest"),
        ("minimax-cloud", "minimax-cloud:latest"),
        ("x@latest", "x-latest:latest"),
        ("my:model", "my:model"),
        ("my:cloud", "my-cloud:latest"),
        ("my@local", "my-local:latest"),
    ],
)
def test_ollama_name(key: str, name: str) -> None:
    assert ollama_name(key) == name
    assert resolved_id(resolver(key), name) == key


PART = st.text("ab1.-_é я", min_size=1, max_size=5).filter(lambda text: text == text.strip())
KEYS = st.builds(
    lambda publisher, name, variant: f"{publisher}{name}{variant}",
    st.sampled_from(["", "a/", "b.c/", "library/", "a/b/"]),
    PART,
    st.sampled_from(["", "@q4_k_m", "@4bit", "@latest", "@x-cloud", ":x", ":cloud", ":local"]),
)
MODELS = st.builds(
    lambda key, publisher, type_, instances, variants: Model(
        key,
        type=type_,
        publisher=publisher,
        instances=tuple(map(Instance, instances)),
        variants=tuple(variants),
    ),
    KEYS,
    st.sampled_from([None, "a", "z"]),
    st.sampled_from(["llm", "embedding"]),
    st.lists(KEYS, max_size=2),
    st.lists(KEYS, max_size=2),
)


@given(st.lists(MODELS, min_size=1, max_size=6))
def test_the_name_of_a_key_means_that_model(models: list[Model]) -> None:
    names = [ollama_name(model.key).lower() for model in models]
    keys = [model.key.lower() for model in models]
    assume(len(set(names)) == len(set(keys)) == len(models))
    assume(all(name not in keys or keys.index(name) == i for i, name in enumerate(names)))
    house = resolver(*models)
    for model, name in zip(models, names, strict=True):
        found = house.resolve(name)
        assert found is not None
        assert found.model is model
        assert found.id == model.key
        assert not name.endswith("cloud")


@given(st.lists(MODELS, min_size=1, max_size=6))
def test_what_is_written_as_it_is_listed_means_that_model(models: list[Model]) -> None:
    house = resolver(*models)
    for model in models:
        found = house.as_written(ollama_name(model.key))
        assert found == house.resolve(ollama_name(model.key))


@pytest.mark.parametrize(
    "name", ["gpt-oss:20b", "llama3.1:8b", "http://plain", "hf.co/plain", "-plain", "plain:", "../plain"]
)
def test_what_only_resembles_a_name_is_not_as_written(name: str) -> None:
    assert HOUSE.as_written(name) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Plain", "plain"),
        ("z.ai/GLM-4.6:latest", "z.ai/glm-4.6"),
        ("glm-4.6", "z.ai/glm-4.6"),
        ("mistral-7b:q8_0", "mistral-7b@q8_0"),
    ],
)
def test_as_written(name: str, expected: str) -> None:
    found = HOUSE.as_written(name)
    assert found is not None
    assert found.id == expected


@given(st.lists(MODELS, max_size=4), st.text() | KEYS)
def test_any_name_is_answered(models: list[Model], name: str) -> None:
    found = resolver(*models).resolve(name)
    assert found is None or found.model in models


def test_the_cache_of_the_model_list_resolves_names() -> None:
    class Source:
        async def catalog(self, purpose: str = "") -> Catalog:
            return Catalog((Model("plain"),))

    async def resolve() -> list[str | None]:
        cache = CatalogCache(Source(), 300, Resolver)
        found = [await cache.resolve(name) for name in ("plain:latest", "library/plain", "other")]
        return [each.id if each else None for each in found]

    assert asyncio.run(resolve()) == ["plain", "plain", None]


def test_a_name_is_looked_up_once_in_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    of_list = resolver("p/plain")
    first = of_list.resolve("plain")
    assert first is not None
    monkeypatch.setattr(names, "_fold", None)
    assert of_list.resolve("plain") is first
    with pytest.raises(TypeError):
        of_list.resolve("Plain")
