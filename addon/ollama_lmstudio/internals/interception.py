"""Flows that a user intercepts, edits, reverts or kills.

The methods of a flow are replaced on the object: mitmproxy has no hook for a resume, a revert or a kill.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

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


class Bodies(NamedTuple):
    """The bodies of a flow at one moment; what there is none of is empty."""

    path: str
    request: bytes
    response: bytes = b""


def bodies(flow: http.HTTPFlow) -> Bodies:
    """Return a flow's bodies as they are now."""
    response = flow.response.raw_content if flow.response else None
    return Bodies(flow.request.path, flow.request.raw_content or b"", response or b"")


def before_edit(flow: http.HTTPFlow) -> Bodies | None:
    """Return the bodies that a flow had when the user began to edit it; None if nobody did, or replayed it.

    They are in mitmproxy's backup, for its command `revert`. Without it, an edit is shown once the flow goes on.
    """
    backup = getattr(flow, "_backup", None)
    request, response = (backup.get(name) if isinstance(backup, dict) else None for name in ("request", "response"))
    if not isinstance(request, dict):
        return None
    path, sent = request.get("path"), request.get("content")
    got = response.get("content") if isinstance(response, dict) else None
    return Bodies(path.decode("utf-8", "replace") if isinstance(path, bytes) else "", sent or b"", got or b"")


def watch_pauses(
    flow: http.HTTPFlow,
    clock: Callable[[], int],
    pauses: Callable[[], Awaitable[None]],
    paused: Callable[[int, Bodies], None],
) -> None:
    """Call `pauses` when each interception of a flow begins, and `paused` when it ends, with its duration (ns) and the
    bodies before it.

    Without it, nobody sees at once that a request waits, the time in which the user edits it counts as LM Studio's
    work, and what was edited is not known.
    """
    wait: Callable[[], Awaitable[None]] = flow.wait_for_resume

    async def wait_and_report() -> None:
        if not flow.intercepted:
            return
        since, before = clock(), bodies(flow)
        await pauses()
        await wait()
        paused(clock() - since, before)

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
