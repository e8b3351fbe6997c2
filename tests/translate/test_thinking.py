"""`think` as `reasoning_effort`, by what a model allows, and which models think."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ollama_lmstudio.lmstudio.answer import ThinkTags
from ollama_lmstudio.lmstudio.catalog import Model, ReasoningOptions
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.services import Services
from ollama_lmstudio.sim import validate
from ollama_lmstudio.translate.thinking import check_thinking, think_tags, think_to_lmstudio, thinking_choices, thinks

MakeServices = Callable[..., Services]


GPT_OSS = ReasoningOptions(("low", "medium", "high"), "low")
ON_OFF = ReasoningOptions(("off", "on"), "on")
OFF_ON = ReasoningOptions(("off", "on"), "off")
ALWAYS = ReasoningOptions(("on",), "on")
LEVELS = ReasoningOptions(("off", "low", "medium", "xhigh", "on"), "xhigh")


@pytest.mark.parametrize(
    ("reasoning", "think", "effort"),
    [
        *[(None, think, None) for think in (None, True, False, "low", "max")],
        *[(reasoning, None, None) for reasoning in (GPT_OSS, ON_OFF, OFF_ON, ALWAYS, LEVELS)],
        (ON_OFF, True, None),
        (ON_OFF, False, "none"),
        (ON_OFF, "low", None),
        (ON_OFF, "max", None),
        (OFF_ON, True, "medium"),
        (OFF_ON, False, "none"),
        (OFF_ON, "high", "medium"),
        (ALWAYS, True, None),
        (ALWAYS, False, None),
        (ALWAYS, "high", None),
        (GPT_OSS, True, None),
        (GPT_OSS, False, "low"),
        (GPT_OSS, "low", "low"),
        (GPT_OSS, "medium", "medium"),
        (GPT_OSS, "high", "high"),
        (GPT_OSS, "max", "high"),
        (LEVELS, True, None),
        (LEVELS, False, "none"),
        (LEVELS, "low", "low"),
        (LEVELS, "high", None),
        (LEVELS, "max", "xhigh"),
        (LEVELS, "xhigh", "xhigh"),
        # Words that a model does not have mean its default.
        (LEVELS, "huge", None),
        (LEVELS, "minimal", None),
        (OFF_ON, "xhigh", None),
        # LM Studio's other words for on and off, and a level that its server does not take.
        (ReasoningOptions(("Disabled", "enabled"), "enabled"), False, "none"),
        (ReasoningOptions(("disabled", "enabled"), "disabled"), True, "medium"),
        (ReasoningOptions(("low", "ultra"), "low"), "ultra", None),
        (ReasoningOptions(), True, None),
        (ReasoningOptions(), False, None),
    ],
)
def test_think(reasoning: ReasoningOptions | None, think: bool | str | None, effort: str | None) -> None:
    assert think_to_lmstudio(think, Model("m", reasoning=reasoning)) == effort
    assert effort is None or effort in validate.EFFORTS


THINKER = Model("thinker", reasoning=ON_OFF, capabilities_known=True)
PLAIN = Model("plain", capabilities_known=True)


@pytest.mark.parametrize(
    ("model", "others", "expected"),
    [
        (THINKER, [], True),
        (Model("m", reasoning=ReasoningOptions(("off",), "off")), [], False),
        (Model("m", reasoning=ReasoningOptions()), [], False),
        # A version that tells of any model tells of all.
        (PLAIN, [THINKER], False),
        (PLAIN, [], None),
        (Model("m"), [THINKER], None),
    ],
)
def test_thinks(model: Model, others: list[Model], expected: bool | None, make_services: MakeServices) -> None:
    services = make_services(model, *others)
    asyncio.run(services.catalog.get())
    assert thinks(model, services) is expected
    check_thinking(False, "n", model, services)
    check_thinking(None, "n", model, services)
    for think in (True, "low"):
        if expected is False:
            with pytest.raises(OllamaError, match='"n" does not support thinking'):
                check_thinking(think, "n", model, services)
        else:
            check_thinking(think, "n", model, services)


@pytest.mark.parametrize(
    ("model", "given", "tags"),
    [
        (Model("m", reasoning=ALWAYS), {}, ThinkTags(always=True, likely=True)),
        (Model("m", reasoning=ReasoningOptions(("Enabled",))), {}, ThinkTags(always=True, likely=True)),
        (Model("m", reasoning=ALWAYS), {"templated": False}, ThinkTags(likely=True)),
        (Model("m", reasoning=ALWAYS), {"hidden": True}, ThinkTags(always=True, likely=True, drop_close=True)),
        (Model("m", reasoning=ALWAYS), {"hidden": True, "streaming": False}, ThinkTags(always=True, likely=True)),
        (Model("m", reasoning=ON_OFF), {}, ThinkTags(likely=True)),
        (Model("m", reasoning=GPT_OSS), {}, ThinkTags(likely=True)),
        (Model("m", reasoning=ReasoningOptions()), {}, ThinkTags(opening=False)),
        (Model("m", reasoning=ReasoningOptions()), {"hidden": True}, ThinkTags(opening=False, drop_close=True)),
        (Model("m"), {}, ThinkTags()),
        (Model("m"), {"hidden": True}, ThinkTags(drop_close=True)),
    ],
)
def test_think_tags(make_services: MakeServices, model: Model, given: dict[str, bool], tags: ThinkTags) -> None:
    services = make_services(model)
    asked = {"templated": True, "streaming": True, "hidden": False} | given
    assert think_tags(model, services, **asked) == tags


@pytest.mark.parametrize(
    ("reasoning", "choices"),
    [
        (None, None),
        (ReasoningOptions(), None),
        (ReasoningOptions(("low", "high")), None),
        (GPT_OSS, {"values": ["low", "medium", "high"], "default": "low"}),
        (ON_OFF, {"values": [False, True], "default": True}),
        (OFF_ON, {"values": [False, True], "default": False}),
        (ALWAYS, {"values": [True], "default": True}),
        (LEVELS, {"values": [False, "low", "medium", "xhigh", True], "default": "xhigh"}),
        (ReasoningOptions(("Disabled", "enabled"), "Enabled"), {"values": [False, True], "default": True}),
        (ReasoningOptions(("low", "ultra"), "low"), {"values": ["low"], "default": "low"}),
        (ReasoningOptions(("low", "ultra"), "ultra"), None),
    ],
)
def test_what_is_shown_of_it(reasoning: ReasoningOptions | None, choices: dict[str, object] | None) -> None:
    assert thinking_choices(Model("m", reasoning=reasoning)) == choices


@pytest.mark.parametrize("think", ["huge", "", "true"])
def test_a_word_that_no_model_has(make_services: MakeServices, think: str) -> None:
    with pytest.raises(OllamaError) as refused:
        check_thinking(think, "m", Model("m"), make_services(Model("m")))
    assert (refused.value.status, f"invalid think value: {think}" in refused.value.message.replace('"', "")) == (
        400,
        True,
    )
    check_thinking(think, "m", Model("m", reasoning=ON_OFF), make_services(Model("m", reasoning=ON_OFF)))
