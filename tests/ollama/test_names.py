"""Model names."""

from __future__ import annotations

import pytest

from ollama_lmstudio.ollama import names
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.ollama.names import Name, Source, is_cloud, key_of, parse_name, split_source


@pytest.mark.parametrize(
    ("text", "display", "canonical"),
    [
        ("plain", "plain:latest", "registry.ollama.ai/library/plain:latest"),
        (" plain\n", "plain:latest", "registry.ollama.ai/library/plain:latest"),
        ("PLAIN:7B", "PLAIN:7B", "registry.ollama.ai/library/PLAIN:7B"),
        ("library/plain", "plain:latest", "registry.ollama.ai/library/plain:latest"),
        ("ns/GoTool", "ns/GoTool:latest", "registry.ollama.ai/ns/GoTool:latest"),
        ("registry.ollama.ai/library/plain:x", "plain:x", "registry.ollama.ai/library/plain:x"),
        ("http://registry.ollama.ai/library/plain", "plain:latest", "registry.ollama.ai/library/plain:latest"),
        ("127.0.0.1:9/x/y", "127.0.0.1:9/x/y:latest", "127.0.0.1:9/x/y:latest"),
        ("hf.co/a/b.gguf:Q4_K_M", "hf.co/a/b.gguf:Q4_K_M", "hf.co/a/b.gguf:Q4_K_M"),
        ("plain:local", "plain:latest", "registry.ollama.ai/library/plain:latest"),
        ("plain:7b:LOCAL", "plain:7b", "registry.ollama.ai/library/plain:7b"),
        ("gpt:20b-cloud", "gpt:20b-cloud", "registry.ollama.ai/library/gpt:20b-cloud"),
        ("a" * 80, f"{'a' * 80}:latest", f"registry.ollama.ai/library/{'a' * 80}:latest"),
    ],
)
def test_parse_name(text: str, display: str, canonical: str) -> None:
    name = parse_name(text)
    assert (name.display, name.canonical) == (display, canonical)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        "plain:",
        ":7b",
        "/x",
        "x/",
        "a//b",
        "-x",
        ".x",
        "x:-7b",
        "n.s/x",
        "a/b/c/d",
        "plain@sha256:00",
        "x:7b/y",
        "é",
        "x\n\ny",
        "a" * 81,
        "x:" + "a" * 81,
        "h" * 351 + "/n/m",
    ],
)
def test_invalid_names(text: str) -> None:
    with pytest.raises(OllamaError) as caught:
        parse_name(text)
    assert (caught.value.status, caught.value.message) == (400, "invalid model name")


def test_defaults() -> None:
    assert parse_name("x") == Name("x") == Name("x", "latest", "library", "registry.ollama.ai")


@pytest.mark.parametrize(
    ("text", "base", "source"),
    [
        ("plain", "plain", Source.UNSPECIFIED),
        ("plain:7b", "plain:7b", Source.UNSPECIFIED),
        ("plain-cloud", "plain-cloud", Source.UNSPECIFIED),
        ("h:80/ns/x-cloud", "h:80/ns/x-cloud", Source.UNSPECIFIED),
        ("plain:local", "plain", Source.LOCAL),
        ("foo:cloud", "foo", Source.CLOUD),
        (" foo:Cloud ", "foo", Source.CLOUD),
        ("foo:20b:cloud", "foo:20b", Source.CLOUD),
        ("foo:20B-CLOUD", "foo:20B", Source.CLOUD),
    ],
)
def test_split_source(text: str, base: str, source: Source) -> None:
    assert split_source(text) == (base, source)
    assert is_cloud(text) is (source is Source.CLOUD)


@pytest.mark.parametrize("text", ["x:cloud:local", "x:local:cloud", "x:20b-cloud:local"])
def test_both_sources(text: str) -> None:
    for function in (split_source, parse_name):
        with pytest.raises(OllamaError) as caught:
            function(text)
        assert caught.value.status == 400
        assert caught.value.message == f'use either :local or :cloud, not both: "{text}"'


def test_a_key_tells_names_apart() -> None:
    same = {
        key_of(text) for text in ("Plain", " plain:LATEST", "library/plain", "REGISTRY.ollama.ai/library/plain:local")
    }
    assert same == {"registry.ollama.ai/library/plain:latest"}
    assert len({key_of(text) for text in ("plain", "plain:7b", "ns/plain", "host.x/library/plain")}) == 4
    assert key_of("a b") is None


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("a b", "registry.ollama.ai/library/a b:latest"),
        ("a b:7b", "registry.ollama.ai/library/a b:7b"),
        ("ns/a b", "registry.ollama.ai/ns/a b:latest"),
        ("https://host:1/ns/m@x:t", "host:1/ns/m@x:t"),
        ("", "registry.ollama.ai/library/:latest"),
    ],
)
def test_invalid_names_are_cut_into_parts_too(text: str, canonical: str) -> None:
    assert names.unchecked(text).canonical == canonical
