"""Answers of a model that was not asked for.

LM Studio answers for a model that it does not have with the one that is loaded. Requests are resolved against its list
first, so that it happens only for a model that has been removed since the list was read. Such an answer is never
passed to a client.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from ..lmstudio.errors import LMStudioError
from ..outcomes import Outcome
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


async def is_gone(exchange: Exchange, asked: str) -> bool:
    """Return whether LM Studio does not have the model any more that it was asked for; False where it cannot tell."""
    try:
        return bool(asked) and not await exchange.bridge.services.catalog.has(asked)
    except LMStudioError:
        return False


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
