"""Flows that a user intercepts, edits, reverts or kills.

The methods of a flow are replaced on the object: mitmproxy has no hook for a resume, a revert or a kill.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mitmproxy import ctx, http

from . import connections
from .interface import show_change


def is_stopped(flow: http.HTTPFlow) -> bool:
    """Whether an intercept filter matches a request as it is now.

    mitmproxy asks this after all hooks, when the request has become a call to LM Studio. Without it, a filter on
    Ollama's paths matches nothing.
    """
    should_intercept = getattr(ctx.master.addons.get("intercept"), "should_intercept", None)
    return should_intercept is not None and bool(should_intercept(flow))


async def wait_for_user(flow: http.HTTPFlow) -> None:
    """Intercept a request, and wait until the user resumes it."""
    flow.intercept()
    await show_change(flow)
    await flow.wait_for_resume()


def let_pass(flow: http.HTTPFlow) -> None:
    """Let no filter intercept a flow, until `may_be_stopped`."""
    flow.intercept = _never  # type: ignore[method-assign]


def may_be_stopped(flow: http.HTTPFlow) -> None:
    """Undo `let_pass`, unless the flow was killed."""
    if flow.killable:
        vars(flow).pop("intercept", None)


def watch_pauses(
    flow: http.HTTPFlow,
    clock: Callable[[], int],
    pauses: Callable[[], Awaitable[None]],
    paused: Callable[[int], None],
) -> None:
    """Call `pauses` when each interception of a flow begins, and `paused` with its duration (ns) when it ends.

    Without it, nobody sees at once that a request waits, and the time in which the user edits it counts as LM Studio's
    work.
    """
    wait: Callable[[], Awaitable[None]] = flow.wait_for_resume

    async def wait_and_report() -> None:
        if not flow.intercepted:
            return
        since = clock()
        await pauses()
        await wait()
        paused(clock() - since)

    flow.wait_for_resume = wait_and_report  # type: ignore[method-assign]


def keep_what_streams(flow: http.HTTPFlow) -> None:
    """Make `revert` do nothing while a flow's response streams.

    mitmproxy restores the state of a backup, in which the function that translates the stream is not: without this, the
    rest of LM Studio's stream would be sent as it is.
    """
    revert: Callable[[], None] = flow.revert

    def revert_unless_streaming() -> None:
        if not (flow.live and flow.response is not None and flow.response.stream):
            revert()

    flow.revert = revert_unless_streaming  # type: ignore[method-assign]


def end_when_killed(flow: http.HTTPFlow, killed: Callable[[http.HTTPFlow], None]) -> None:
    """Make a flow end at once when it is killed, intercepted or not. `killed` is called first.

    mitmproxy's kill() does not wake a hook that waits for a resume, and after it resume() does nothing: without this,
    the client would wait for ever (https://github.com/mitmproxy/mitmproxy/issues/8045).
    """
    kill: Callable[[], None] = flow.kill

    def kill_and_wake() -> None:
        paused = flow.intercepted
        kill()
        killed(flow)
        # The filter that has intercepted it still matches.
        let_pass(flow)
        if paused:
            flow.intercepted = True
            flow.resume()
        else:
            # mitmproxy notices the kill only when LM Studio's response has ended.
            connections.write_last(flow, b"")

    flow.kill = kill_and_wake  # type: ignore[method-assign]


def _never() -> None:
    pass
