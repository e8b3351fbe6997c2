"""Modules that most processes never use: what is in them is loaded when something of it is first used.

They cost memory and time at the start. Whoever uses one imports it whole (`from . import export`): to import a name
from it would load it. What every chat needs does not belong here.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from types import ModuleType

logger = logging.getLogger(__name__)

NAMES = (
    "endpoints.account",
    "endpoints.blobs",
    "endpoints.copy",
    "endpoints.create",
    "endpoints.delete",
    "endpoints.embed",
    "endpoints.embeddings",
    "endpoints.health",
    "endpoints.metrics",
    "endpoints.passthrough",
    "endpoints.pull",
    "endpoints.push",
    "endpoints.recommendations",
    "endpoints.status",
    "endpoints.systemone",
    "endpoints.web",
    "exchanges.loopback",
    "inspect.answers",
    "inspect.compare",
    "inspect.conversation",
    "inspect.doctor",
    "inspect.export",
    "inspect.numbers",
    "inspect.render",
    "inspect.render_answer",
    "inspect.render_lmstudio",
    "inspect.render_parts",
    "inspect.repeat",
    "inspect.reports",
    "inspect.response_data",
    "inspect.sheet",
    "inspect.stats",
    "inspect.table",
    "inspect.thread",
    "inspect.timeline",
    "internals.web_app",
    "internals.web_page",
    "page.handlers",
    "page.updates",
    "state.former",
    "translate.former_aliases",
)

_modules: list[ModuleType] = []


def install() -> None:
    """Let the modules be found as if they had been imported; see importlib.util.LazyLoader."""
    for name in NAMES:
        room, _, stem = name.partition(".")
        spec = importlib.util.find_spec(f"{__package__}.{name}")
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(name)
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        setattr(sys.modules[f"{__package__}.{room}"], stem, module)
        spec.loader.exec_module(module)
        _modules.append(module)


def load_all() -> None:
    """Load what has not been loaded, before the code is loaded anew.

    What is loaded later would be made of the new code's modules, and would not fit the old ones that use it.
    """
    for module in _modules:
        try:
            vars(module)
        except Exception:
            # The files may have changed. What fails is what needs the module, with this error in the log.
            logger.exception("%s could not be loaded", module)
