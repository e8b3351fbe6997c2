"""A faithful stand-in for LM Studio's server: for a first look without LM Studio, and for tests.

It answers as LM Studio does, byte for byte where that is known, and refuses what LM Studio refuses.
"""

from __future__ import annotations

from .backend import Settings
from .connection import Recorded
from .faults import Disconnect, Fault, MidError
from .generate import Prompt, Step, close, content, end, error, raw, reasoning, reset, sleep, tool_call, wait, words
from .models import (
    ALWAYS_ON_REASONING,
    GPT_OSS_REASONING,
    LEVELS_REASONING,
    Reasoning,
    SimModel,
    Version,
    decider,
    embedder,
    gpt_oss,
)
from .server import Sim, SimThread
from .state import Instance, SimDownload

__all__ = [
    "ALWAYS_ON_REASONING",
    "GPT_OSS_REASONING",
    "LEVELS_REASONING",
    "Disconnect",
    "Fault",
    "Instance",
    "MidError",
    "Prompt",
    "Reasoning",
    "Recorded",
    "Settings",
    "Sim",
    "SimDownload",
    "SimModel",
    "SimThread",
    "Step",
    "Version",
    "close",
    "content",
    "decider",
    "embedder",
    "end",
    "error",
    "gpt_oss",
    "raw",
    "reasoning",
    "reset",
    "sleep",
    "tool_call",
    "wait",
    "words",
]
