"""Fill in the middle: which models have the tokens, and where prompt and suffix stand among them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.lmstudio.catalog import Model
from ollama_lmstudio.translate import fim

PIPED = "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>"
PLAIN = "<fim_prefix>P<fim_suffix>S<fim_middle>"
DEEPSEEK = "<｜fim▁begin｜>P<｜fim▁hole｜>S<｜fim▁end｜>"

MODELS = {
    "qwen2.5-coder-7b-instruct": PIPED,
    "qwen/qwen3-coder-30b": PIPED,
    "Qwen2.5-Coder-1.5B@q8_0": PIPED,
    "codeqwen1.5-7b-chat": PLAIN,
    "codegemma-2b": PIPED,
    "google/code-gemma-7b": PIPED,
    "codellama-7b-code": "<PRE> P <SUF>S <MID>",
    "deepseek-coder-v2-lite-instruct": DEEPSEEK,
    "deepseek-coder-6.7b-base": DEEPSEEK,
    "starcoder2-3b": PLAIN,
    "granite-8b-code-instruct-128k": PLAIN,
    "ibm/granite-code-3b": PLAIN,
    "granite-3.3-8b-instruct": PIPED,
    "ibm/granite-4-h-tiny": PIPED,
    "stable-code-3b": PLAIN,
    "mistralai/codestral-22b-v0.1": "[SUFFIX]S[PREFIX]P",
}


@pytest.mark.parametrize(("key", "joined"), MODELS.items())
def test_families(key: str, joined: str) -> None:
    template = fim.template_for(Model(key))
    assert template is not None
    assert template("P", "S") == joined


def test_a_model_of_another_name_is_known_by_its_architecture() -> None:
    template = fim.template_for(Model("my-finetune", architecture="starcoder2"))
    assert template is not None
    assert template("P", "S") == PLAIN
    assert fim.template_for(Model("my-finetune", architecture="llama")) is None


def test_every_family_is_tested() -> None:
    used = {pattern.pattern for pattern, _ in fim._PATTERNS for key in MODELS if pattern.search(key.lower())}
    assert used == {pattern for pattern, _ in fim.FAMILIES}


@pytest.mark.parametrize(
    "key",
    [
        "llama-3.1-8b-instruct",
        "openai/gpt-oss-20b",
        "qwen/qwen3-8b",
        "qwen2.5-7b-instruct",
        "google/gemma-3-4b",
        "mistralai/mistral-small-3.2",
        "deepseek-r1-distill-qwen-7b",
        "granite-3.1-8b-instruct",
        "phi-4",
        "decoder-only-7b",
    ],
)
def test_other_models_have_no_such_tokens(key: str) -> None:
    assert fim.template_for(Model(key)) is None


def test_embedding_models_have_none_either() -> None:
    assert fim.template_for(Model("text-embedding-qwen2.5-coder", type="embedding")) is None


braces = st.text(st.sampled_from("{}prefsuix0 "), max_size=12) | st.sampled_from(["{prefix}", "{suffix}", "{}", "{0}"])


@given(st.sampled_from(list(MODELS)), braces, braces)
def test_braces_are_text(key: str, prompt: str, suffix: str) -> None:
    template = fim.template_for(Model(key))
    assert template is not None
    # Control characters stand in none of the texts: what they are put for is put once.
    expected = template("\0", "\1").replace("\0", prompt).replace("\1", suffix)
    assert template(prompt, suffix) == expected
