"""Options that are set before they exist."""

from __future__ import annotations

import pytest
from mitmproxy import ctx, exceptions
from mitmproxy.options import Options

from ollama_lmstudio.internals import deferred_options


def test_deferred_options_are_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options()
    monkeypatch.setattr(ctx, "options", options, raising=False)
    options.set("size=5", "colour=red", defer=True)
    assert set(deferred_options.unknown()) == {"size", "colour"}
    options.add_option("size", int, 1, "A size.")
    deferred_options.apply("length")
    assert options.size == 1
    deferred_options.apply("size")
    assert options.size == 5
    assert list(deferred_options.unknown()) == ["colour"]


def test_a_wrong_value_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options()
    monkeypatch.setattr(ctx, "options", options, raising=False)
    options.set("size=large", defer=True)
    options.add_option("size", int, 1, "A size.")
    with pytest.raises(exceptions.OptionsError, match=r"(?i)not an integer: large"):
        deferred_options.apply("size")


def test_a_mitmproxy_that_defers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctx, "options", object(), raising=False)
    assert list(deferred_options.unknown()) == []
