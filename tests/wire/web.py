"""mitmweb, as its own page talks to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.wire.conftest import Proxy, free_port, http_client

Flow = dict[str, Any]


class Web:
    """mitmweb's interface behind its page: the flows, and what a person does with them."""

    def __init__(self, proxy: Proxy) -> None:
        """Connect to the mitmweb of a process that was started with `arguments()`."""
        line = proxy.wait_for_log(r"Web server listening at http://\S+")
        self.url = re.sub(r"^.* ", "", line)
        self._proxy = proxy
        base, _, token = self.url.partition("/?token=")
        self.http = http_client(base_url=base.rstrip("/"), timeout=20)
        self.http.get("/", params={"token": token} if token else {}).raise_for_status()
        # The page gets its cookie where it asks to be told of changes; this is no web socket, which does not matter.
        self.http.get("/updates")
        self.http.headers["X-XSRFToken"] = next(v for k, v in self.http.cookies.items() if k.endswith("_xsrf"))

    @staticmethod
    def arguments() -> tuple[str, ...]:
        """Give what mitmweb is started with: a port of its own, and no browser."""
        return ("--no-web-open-browser", "--web-port", str(free_port()), "--web-host", "127.0.0.1")

    @property
    def conversations(self) -> str:
        """The address of the conversation page, with the token where there is one."""
        return self.url.replace("/?", "/ollama/?") if "?" in self.url else f"{self.url.rstrip('/')}/ollama/"

    def flows(self) -> list[Flow]:
        """Give all flows, the oldest first."""
        flows: list[Flow] = self.http.get("/flows").raise_for_status().json()
        return flows

    def flow(self, fits: Any) -> Flow:
        """Wait for a flow."""
        self._proxy.wait_for(lambda: any(fits(flow) for flow in self.flows()))
        return next(flow for flow in self.flows() if fits(flow))

    def paused(self) -> Flow:
        """Wait for a flow that waits for a person."""
        return self.flow(lambda flow: flow["intercepted"])

    def content(self, flow: Flow, part: str = "request") -> str:
        """Give a body."""
        return self.http.get(f"/flows/{flow['id']}/{part}/content.data").raise_for_status().text

    def view(self, flow: Flow, part: str, view: str = "Auto") -> str:
        """Give a body as the page shows it."""
        answer = self.http.get(f"/flows/{flow['id']}/{part}/content/{view}").raise_for_status().json()
        lines = answer["text"] if "text" in answer else _joined(answer["lines"])
        return f"{answer.get('view_name') or answer['description']}\n{lines}"

    def edit(self, flow: Flow, **changes: Any) -> None:
        """Edit a flow as the page does: `request={"content": ...}`."""
        self.http.put(f"/flows/{flow['id']}", json=changes).raise_for_status()

    def resume(self, flow: Flow) -> None:
        """Let a flow go on."""
        self.http.post(f"/flows/{flow['id']}/resume").raise_for_status()

    def kill(self, flow: Flow) -> None:
        """End a flow."""
        self.http.post(f"/flows/{flow['id']}/kill").raise_for_status()

    def remove(self, flow: Flow) -> None:
        """Take a flow from the list."""
        self.http.delete(f"/flows/{flow['id']}").raise_for_status()

    def replay(self, flow: Flow) -> None:
        """Replay a flow."""
        self.http.post(f"/flows/{flow['id']}/replay").raise_for_status()

    def command(self, name: str, *arguments: str) -> Any:
        """Run a command as the command bar does."""
        return self.http.post(f"/commands/{name}", json={"arguments": list(arguments)}).raise_for_status().json()

    def option(self, **options: Any) -> None:
        """Set options."""
        self.http.put("/options", json=options).raise_for_status()


@contextmanager
def mitmweb(lmstudio_url: str, *arguments: str, **settings: Any) -> Iterator[tuple[Proxy, Web]]:
    """Start mitmweb with the addon, which has found LM Studio's models; the settings are those of `Proxy`."""
    with Proxy(lmstudio_url, *Web.arguments(), *arguments, tool="mitmweb", **settings) as proxy:
        proxy.wait_for_log(r"\(\d+ models\)")
        web = Web(proxy)
        yield proxy, web
        web.http.close()


def _joined(lines: list[list[tuple[str, str]]]) -> str:
    # On mitmproxy 11 a line break stands for an empty line.
    return "\n".join("".join(text for _, text in line).removesuffix("\n") for line in lines)
