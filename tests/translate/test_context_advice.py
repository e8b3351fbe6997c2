"""Which errors are about a lack of context."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.services import make_services as make_services

from ollama_lmstudio.services import Services
from ollama_lmstudio.translate.context_advice import with_advice

LACKING = [
    "request (9025 tokens) exceeds the available context size (8192 tokens), try increasing it",
    "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 4512>= n_ctx: "
    "4096). Try to load the model with a larger context length, or provide a shorter input",
    "Trying to keep the first N tokens when context the overflows. However, the model is loaded with context length of "
    "only M tokens, which is not enough.",
    "Cannot truncate prompt with n_keep (9) >= n_ctx (8)",
    "Reached context length of 4096 tokens, but this model does not currently support mid-generation context overflow",
    "Context size has been exceeded.",
    "Input does not fit in context length.",
]


@pytest.mark.parametrize("message", LACKING)
@pytest.mark.parametrize(
    ("num_ctx", "option"), [("ignore", "num_ctx=grow"), ("load", "num_ctx=grow"), ("grow", "num_ctx")]
)
def test_an_error_for_lack_of_context_names_the_option_that_helps(
    message: str, num_ctx: str, option: str, make_services: Callable[..., Services]
) -> None:
    told = with_advice(message, make_services(num_ctx=num_ctx))
    assert told.startswith(f"{message} (")
    assert option in told
    assert "context_length" in told


@pytest.mark.parametrize("message", ["The model has crashed", "a context", 'option "num_ctx" must be of type integer'])
def test_other_errors_stay_as_they_are(message: str, make_services: Callable[..., Services]) -> None:
    assert with_advice(message, make_services()) == message
