"""Repairs of what is passed through: what Ollama's `/v1` takes, and LM Studio refuses or silently ignores.

REPAIRS is the table of all of them (the option `repair_passthrough`). What needs no repair keeps its bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..ollama import errors
from ..services import Services
from . import fim
from .models import canonical_name
from .passthrough import PassedRequest
from .paths import CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS, MESSAGES, MODELS, RESPONSES
from .repair_aliases import apply_to_chat, apply_to_completion, apply_to_message, apply_to_response
from .repair_embeddings import repair_embeddings
from .repair_images import repair_chat_images, repair_message_images, repair_response_images
from .repair_messages import repair_chat_messages, repair_outputs, repair_system_messages
from .repair_reasoning import repair_chat_effort, repair_response_effort
from .repair_tools import repair_tool_choice, repair_tools
from .response_format import format_to_lmstudio

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing that Ollama takes and LM Studio does not. `takes`, `flaw` and `becomes` are for the README.

    LM Studio would `flaw` (a verb) the `name`; `apply` changes the request, or has its answer changed, and returns
    whether there was something to repair. It raises OllamaError for what Ollama refuses as well.
    """

    name: str
    takes: str
    flaw: str
    becomes: str
    apply: Callable[[PassedRequest], bool] = lambda request: False


def repaired(request: PassedRequest) -> bytes:
    """Return a request's body with LM Studio's key, and so that LM Studio takes it as Ollama does.

    Raises OllamaError for one that Ollama refuses, or that LM Studio cannot be made to take.
    """
    request.body.set("model", request.resolved.id)
    if request.services.settings.repair_passthrough:
        for repair in REPAIRS.get(request.path, ()):
            if repair.apply(request):
                _log_once(f"{repair.flaw} the {repair.name} of {request.path}", request.services)
    return request.body.encode()


def _log_once(flaw: str, services: Services) -> None:
    if flaw not in services.logged_once:
        services.logged_once.add(flaw)
        logger.info("LM Studio would %s: repaired, see the option repair_passthrough (said once)", flaw)


def _repair_response_format(request: PassedRequest) -> bool:
    wanted = request.body.get("response_format")
    if not isinstance(wanted, Mapping) or wanted.get("type") != "json_object":
        return False
    request.body.set("response_format", format_to_lmstudio("json"))
    return True


def _repair_text(request: PassedRequest) -> bool:
    """Complete `text`, in which clients send `verbosity` alone."""
    text = request.body.get("text")
    if not isinstance(text, Mapping) or text.get("format") is not None:
        return False
    request.body.set("text", {**text, "format": {"type": "text"}})
    return True


def _repair_suffix(request: PassedRequest) -> bool:
    """Make prompt and suffix the prompt of the model's family. Raises OllamaError (400) for a model without one."""
    body = request.body
    prompt, suffix = body.get("prompt") or "", body.get("suffix")
    if not (isinstance(prompt, str) and isinstance(suffix, str) and suffix):
        return False
    join = fim.template_for(request.resolved.model)
    if join is None:
        raise errors.insert_unsupported(canonical_name(request.asked))
    body.set("prompt", join(prompt, suffix))
    body.remove("suffix")
    return True


_ALIAS = (
    "alias",
    "names that `ollama create` made",
    "ignore",
    "the alias's system text, messages and parameters, as far as the request has none",
)
CHAT_ALIAS = Repair(*_ALIAS, apply_to_chat)
COMPLETION_ALIAS = Repair(*_ALIAS, apply_to_completion)
RESPONSE_ALIAS = Repair(*_ALIAS, apply_to_response)
MESSAGE_ALIAS = Repair(*_ALIAS, apply_to_message)
_IMAGES = (
    "images",
    "images as `image/webp`, `image/jpg` or without a type, `image_url` as a string, images of a tool's result",
    "refuse",
    "PNG or JPEG in the form that LM Studio takes; other kinds are converted with the extra `images`",
)
CHAT_IMAGES = Repair(*_IMAGES, repair_chat_images)
RESPONSE_IMAGES = Repair(*_IMAGES, repair_response_images)
MESSAGE_IMAGES = Repair(*_IMAGES, repair_message_images)
CHAT_MESSAGES = Repair(
    "messages",
    "results of tools without `tool_call_id`, calls without `id` or `type`, any `role`",
    "refuse",
    "ids that fit, by name or order; the role `user`",
    repair_chat_messages,
)
OUTPUTS = Repair(
    "outputs",
    "`output` of a `function_call_output` as a list",
    "refuse",
    "its text; its images follow in a message of the user",
    repair_outputs,
)
SYSTEM_MESSAGES = Repair(
    "system messages",
    "messages of the role `system`, or any other",
    "refuse",
    "their text in `system`; the role `user`",
    repair_system_messages,
)
TOOLS = Repair(
    "tools",
    'tools with `"parameters": {}`, without `properties`, with nulls',
    "refuse",
    "the same definitions, complete",
    repair_tools,
)
TOOL_CHOICE = Repair(
    "tool_choice",
    "`tool_choice` as an object, `any`, or anything else",
    "refuse",
    "`required` with the tools that it names, `auto` where it says nothing",
    repair_tool_choice,
)
RESPONSE_FORMAT = Repair(
    "response_format", '`{"type": "json_object"}`', "refuse", "the schema of any object", _repair_response_format
)
SUFFIX = Repair(
    "suffix",
    "`suffix`",
    "ignore",
    "the model's prompt for filling in the middle; a 400 for a model that has none",
    _repair_suffix,
)
_EFFORT = (
    "reasoning effort",
    "the efforts `max` and `ultra`, or any word; `reasoning.effort` on chat completions, `think` on responses",
    "refuse",
    "the nearest level that the model has, its default for an unknown word",
)
CHAT_EFFORT = Repair(*_EFFORT, repair_chat_effort)
RESPONSE_EFFORT = Repair(*_EFFORT, repair_response_effort)
RESPONSE_TEXT = Repair("text", "`text` without `format`", "refuse", "`text` with the format `text`", _repair_text)
EMBEDDING = Repair(
    "encoding_format and dimensions",
    '`"encoding_format": "base64"`, `dimensions`, vectors of length 1',
    "ignore",
    "the vectors of the answer are cut, scaled to length 1 and encoded",
    repair_embeddings,
)
# There is no body to be changed: `complete_list` does this.
LIST = Repair("list", "`created` in the entries of `GET /v1/models`", "omit", "it is added")

# `/api/v0/chat/completions` refuses the same, but Ollama has no such path: a client that uses it was written for LM
# Studio.
REPAIRS: Mapping[str, tuple[Repair, ...]] = {
    CHAT_COMPLETIONS: (CHAT_ALIAS, CHAT_MESSAGES, CHAT_IMAGES, TOOLS, TOOL_CHOICE, RESPONSE_FORMAT, CHAT_EFFORT),
    COMPLETIONS: (COMPLETION_ALIAS, SUFFIX),
    RESPONSES: (RESPONSE_ALIAS, OUTPUTS, RESPONSE_IMAGES, TOOLS, TOOL_CHOICE, RESPONSE_EFFORT, RESPONSE_TEXT),
    MESSAGES: (MESSAGE_ALIAS, SYSTEM_MESSAGES, MESSAGE_IMAGES),
    EMBEDDINGS: (EMBEDDING,),
    MODELS: (LIST,),
}
