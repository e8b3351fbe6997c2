"""Answers of a model that was not asked for.

LM Studio answers for a model that it does not have with the one that is loaded. Requests are resolved against its list
first, so that it happens only for a model that has been removed since the list was read. Such an answer is never
passed to a client.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from ..lmstudio.answering_model import model_of_body
from ..lmstudio.errors import LMStudioError
from ..outcomes import Outcome
from ..threads import run_in_thread_if_large
from .exchange import Exchange

logger = logging.getLogger(__name__)


async def is_substitute(exchange: Exchange, asked: str, answered: str) -> bool:
    """Return whether LM Studio has answered with another model than `asked`; the list is read anew to know.

    While it cannot be read, an answer that names another id is taken for one of another model.
    """
    if answered == asked or not (asked and answered):
        return False
    try:
        if await exchange.bridge.services.catalog.confirm(asked, answered):
            return False
    except LMStudioError:
        pass
    logger.warning("LM Studio answered with %s in place of %s: its answer was not passed on", answered, asked)
    return True


async def is_whole_substitute(exchange: Exchange, asked: str, status: int, content_type: str, body: bytes) -> bool:
    """Return whether a whole response is another model's answer; see `is_substitute`."""
    if status != HTTPStatus.OK or not asked:
        return False
    answered = await run_in_thread_if_large(len(body), model_of_body, content_type, body)
    return await is_substitute(exchange, asked, answered)


async def call_once_more(exchange: Exchange, path: str, body: bytes, asked: str) -> tuple[int, str, bytes]:
    """Send a call once more, as one of the bridge's own; return status, content type and body of what came.

    Raises LMStudioError where nothing came, or the answer of another model.
    """
    status, content_type, answer = await exchange.bridge.services.client.post(path, body)
    if await is_whole_substitute(exchange, asked, status, content_type, answer):
        raise other_model(asked)
    exchange.recorder.record.status = status
    return status, content_type, answer


async def is_gone(exchange: Exchange, asked: str) -> bool:
    """Return whether LM Studio does not have the model any more that it was asked for; False where it cannot tell."""
    try:
        gone = bool(asked) and not await exchange.bridge.services.catalog.has(asked)
    except LMStudioError:
        return False
    if gone:
        logger.warning(
            "LM Studio has lost %s: it was deleted, or the linked device that has it is not connected", asked
        )
    return gone


async def decide_again(exchange: Exchange, asked: str) -> Outcome:
    """Return what becomes of the request now that the list has been read anew: mostly that there is no such model.

    Raises LMStudioError for one that the user replays, which is sent as it is.
    """
    if exchange.decide_again is None:
        raise other_model(asked)
    outcome = await exchange.decide_again()
    exchange.recorder.forget_upstream()
    exchange.recorder.set_outcome(outcome)
    return outcome


def other_model(asked: str) -> LMStudioError:
    """Return the error of a call that LM Studio answers with another model, although it may list the one asked for."""
    return LMStudioError(
        HTTPStatus.BAD_GATEWAY, f"LM Studio answered with another model in place of {asked}: load {asked} and ask again"
    )
