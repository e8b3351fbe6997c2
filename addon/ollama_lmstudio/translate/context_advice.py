"""Which option helps when LM Studio refuses or cuts an answer because a model is loaded with too little context."""

from __future__ import annotations

import logging

from .. import tolerant_json
from ..lmstudio.errors import LMStudioError, lacks_context
from ..outcomes import Call
from ..services import Services
from .counts import count_words
from .models import ResolvedModel

# Engines leave the last token of the context unused, or do not.
SPARE_TOKENS = 1
# A prompt with more bytes for each token that LM Studio has counted may have been cut; usual are three to five.
MOST_BYTES_PER_TOKEN = 8

ADVICE = {
    "ignore": (
        "The option num_ctx=grow of this bridge loads the model with the num_ctx of a request, and context_length with "
        "more for every request"
    ),
    "load": (
        "The option num_ctx=grow of this bridge loads the model anew for a request with a larger num_ctx, and "
        "context_length with more for every request"
    ),
    "grow": (
        "A larger num_ctx in the request's options loads the model with more, and the option context_length of this "
        "bridge for every request"
    ),
}

logger = logging.getLogger(__name__)


def with_advice(message: str, services: Services) -> str:
    """Return an error's message, and which option helps if it is about a lack of context."""
    return f"{message} ({ADVICE[services.settings.num_ctx]})" if lacks_context(message) else message


def log_if_cut(call: Call, resolved: ResolvedModel, services: Services) -> None:
    """Log, once for each model, that an answer has ended at the end of the context, or that its prompt was cut."""
    measured = call.translation.measured()
    read, written = measured.metrics.prompt_eval_count, measured.metrics.eval_count
    key = resolved.model.key
    if not read or key in services.advised:
        return
    if measured.done_reason == "length":
        services.lifetimes.in_background(_log_if_full(read + written, resolved, services))
    elif words := words_if_cut(call.body, read):
        _log(key, f"LM Studio has cut a prompt of {words} words at least to {read} tokens for {key}", services)


def words_if_cut(body: bytes, read: int) -> int:
    """Return the number of words in a call's prompt, if they are more than the tokens that were read; else 0."""
    words = _words(body) if _may_be_cut(body, read) else 0
    return words if words > read else 0


def _may_be_cut(body: bytes, read: int) -> bool:
    """Return whether the size of a call's body says that its prompt may have more tokens than were read."""
    # Images have many bytes and few tokens: a call with one is not parsed for this.
    return len(body) > read * MOST_BYTES_PER_TOKEN and b";base64," not in body


async def _log_if_full(tokens: int, resolved: ResolvedModel, services: Services) -> None:
    length = await _context_length(resolved, services)
    if length and tokens >= length - SPARE_TOKENS:
        key = resolved.model.key
        _log(key, f"an answer of {key} was cut at the end of its context of {length} tokens", services)


def _log(key: str, what: str, services: Services) -> None:
    if key not in services.advised:
        services.advised.add(key)
        logger.warning("%s. %s (said once for each model)", what, ADVICE[services.settings.num_ctx])


async def _context_length(resolved: ResolvedModel, services: Services) -> int | None:
    """Return the context length that a model is loaded with; None where LM Studio does not tell."""
    catalog = services.catalog
    try:
        found = await catalog.exact(resolved.model.key)
        if found is not None and not found.model.loaded and catalog.tells_loaded:
            # The call has loaded it.
            await catalog.refresh()
            found = await catalog.exact(resolved.model.key)
    except LMStudioError:
        return None
    return next((i.context_length for i in found.model.instances if i.context_length), None) if found else None


def _words(body: bytes) -> int:
    """Return the number of words in the messages of a call, each of which is a token at least."""
    messages = (tolerant_json.loads(body) or {}).get("messages", ())
    texts = (message.get("content") for message in messages if isinstance(message, dict))
    return sum(count_words(text) for text in texts if isinstance(text, str))
