"""Flows that a user stops, edits, reverts or kills."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mitmproxy import ctx, http

from . import connections
from .interface import show_change


def is_stopped(flow: http.HTTPFlow) -> bool:
    """Whether an intercept filter matches a request as it is now."""
    should_intercept = getattr(ctx.master.addons.get("intercept"), "should_intercept", None)
    return should_intercept is not None and bool(should_intercept(flow))


async def wait_for_user(flow: http.HTTPFlow) -> None:
    """Pause a request until a person lets it go on."""
    flow.intercept()
    await show_change(flow)
    await flow.wait_for_resume()


def let_pass(flow: http.HTTPFlow) -> None:
    """Let no filter pause a flow, until `may_be_stopped`."""
    flow.intercept = _never  # type: ignore[method-assign]


def may_be_stopped(flow: http.HTTPFlow) -> None:
    """Take `let_pass` back, unless the flow was killed."""
    if flow.killable:
        vars(flow).pop("intercept", None)


def watch_pauses(flow: http.HTTPFlow, clock: Callable[[], int], paused: Callable[[int], None]) -> None:
    """Tell how long (ns) a person, or another addon, has held a flow, each time that it goes on."""
    wait: Callable[[], Awaitable[None]] = flow.wait_for_resume

    async def wait_and_tell() -> None:
        if not flow.intercepted:
            return
        since = clock()
        await wait()
        paused(clock() - since)

    flow.wait_for_resume = wait_and_tell  # type: ignore[method-assign]


def keep_what_streams(flow: http.HTTPFlow) -> None:
    """Let nobody revert a flow while its answer streams: what would be sent on is not what was begun."""
    revert: Callable[[], None] = flow.revert

    def revert_unless_it_streams() -> None:
        if not (flow.live and flow.response is not None and flow.response.stream):
            revert()

    flow.revert = revert_unless_it_streams  # type: ignore[method-assign]


def end_when_killed(flow: http.HTTPFlow, killed: Callable[[http.HTTPFlow], None]) -> None:
    """Let a flow end that a person kills: at once, paused or not. `killed` is told of it first.

    Mitmproxy's kill() wakes nobody who waits for a resume, and after it resume() does nothing: the client would never
    hear of it (https://github.com/mitmproxy/mitmproxy/issues/8045).
    """
    kill: Callable[[], None] = flow.kill

    def kill_and_wake() -> None:
        paused = flow.intercepted
        kill()
        killed(flow)
        # The filter that has paused it still fits.
        let_pass(flow)
        if paused:
            flow.intercepted = True
            flow.resume()
        else:
            # Mitmproxy would look at it when LM Studio has said all that it has to say.
            connections.write_last(flow, b"")

    flow.kill = kill_and_wake  # type: ignore[method-assign]


def _never() -> None:
    pass
