"""The demonstration: a few models to look at without LM Studio. It says of itself that it is no language model."""

from __future__ import annotations

from .models import Reasoning, SimModel, embedder, gpt_oss
from .server import Sim

PREAMBLE = "This is the built-in demo, not a language model. "
# About the pace at which people read along.
TOKEN_DELAY = 1 / 30
LOAD_SECONDS = 0.5


def demo_models() -> list[SimModel]:
    """Return models of each kind: chat, vision, reasoning, tools, embeddings."""
    return [
        SimModel(
            "llama-3.2-3b-instruct",
            display_name="Llama 3.2 3B Instruct",
            params_string="3B",
            load_seconds=LOAD_SECONDS,
        ),
        SimModel(
            "google/gemma-3-4b",
            display_name="Gemma 3 4B",
            architecture="gemma3",
            params_string="4B",
            size_bytes=3_341_192_928,
            vision=True,
            tools=False,
            load_seconds=LOAD_SECONDS,
        ),
        SimModel(
            "qwen/qwen3-4b-thinking-2507",
            display_name="Qwen3 4B Thinking 2507",
            architecture="qwen3",
            params_string="4B",
            size_bytes=2_497_281_120,
            max_context_length=262144,
            reasoning=Reasoning(),
            load_seconds=LOAD_SECONDS,
        ),
        gpt_oss(load_seconds=LOAD_SECONDS),
        embedder(display_name="Nomic Embed Text v1.5", load_seconds=LOAD_SECONDS),
    ]


def demo_sim() -> Sim:
    """Return a Sim with the demo's models, at a readable pace."""
    return Sim(demo_models(), token_delay=TOKEN_DELAY, preamble=PREAMBLE)
