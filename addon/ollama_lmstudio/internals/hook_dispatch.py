"""mitmproxy's hooks, without asking each of its addons for each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from mitmproxy import addonmanager, ctx, hooks

_OF_MITMPROXY = "mitmproxy."


class _Addons:
    """As much of an AddonManager as its `trigger` and `trigger_event` use."""

    def __init__(self, manager: addonmanager.AddonManager, chain: Sequence[Any]) -> None:
        self.chain = chain
        self.invoke_addon = manager.invoke_addon
        self.invoke_addon_sync = manager.invoke_addon_sync


class HookDispatch:
    """Trigger a hook for those of mitmproxy's addons alone that have it, until removed.

    mitmproxy looks into each of its 40 addons for each hook, for an `update` after it, and for each line of its log.
    Without this, that is a fifth of the time that a short request takes. Which addons have a hook is found once;
    those that are not mitmproxy's own, and those that have addons of their own, are asked every time.
    """

    def __init__(self) -> None:
        self._manager: addonmanager.AddonManager | None = None
        self._chain: Sequence[Any] = ()
        self._length = 0
        self._having: dict[str, _Addons] = {}

    def install(self) -> None:
        """Take over from mitmproxy's manager of addons; nothing is changed if it is another one than is known."""
        manager = ctx.master.addons
        if "chain" in vars(manager):
            self._manager = manager
            vars(manager).update(trigger=self._trigger, trigger_event=self._trigger_event)

    def remove(self) -> None:
        """Let mitmproxy trigger hooks again."""
        if self._manager is not None and vars(self._manager).get("trigger") == self._trigger:
            del vars(self._manager)["trigger"], vars(self._manager)["trigger_event"]
        self._having.clear()

    def _trigger(self, event: hooks.Hook) -> None:
        addonmanager.AddonManager.trigger(self._with_hook(event.name), event)  # type: ignore[arg-type]

    def _trigger_event(self, event: hooks.Hook) -> Awaitable[None]:
        return addonmanager.AddonManager.trigger_event(self._with_hook(event.name), event)  # type: ignore[arg-type]

    def _with_hook(self, name: str) -> _Addons:
        """Return the addons that have to be asked. mitmproxy appends to its list of addons, or replaces it."""
        assert self._manager is not None
        chain = self._manager.chain
        if chain is not self._chain or len(chain) != self._length:
            self._having.clear()
            self._chain, self._length = chain, len(chain)
        having = self._having.get(name)
        if having is None:
            asked = [addon for addon in chain if not _is_without(addon, name)]
            having = self._having[name] = _Addons(self._manager, asked)
        return having


def _is_without(addon: object, name: str) -> bool:
    """Whether an addon is one of mitmproxy's own that will never have a hook of this name."""
    return not (
        hasattr(addon, name) or hasattr(addon, "addons") or not type(addon).__module__.startswith(_OF_MITMPROXY)
    )
