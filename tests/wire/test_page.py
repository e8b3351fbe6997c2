"""The conversation page in mitmweb, as a program talks to it: who is let in, what it gets, what it is told."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from mitmproxy.tools.web import app as mitmweb_app
from PIL import Image
from tests.inspect.conftest import PNG
from tests.strict.reader import marked
from tests.wire.conftest import CHAT, HI, THINKING, VISION, Proxy, StartProxy, http_client, models
from tests.wire.test_startup import LOADED_MODULES, copy_of_addon, loaded_modules, touch
from tests.wire.web import Flow, Web, mitmweb
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from ollama_lmstudio.sim import Sim, SimThread, content, reasoning, wait, words

# mitmproxy 11 has no login: there, only the Host header is checked.
HAS_LOGIN = hasattr(mitmweb_app, "AuthRequestHandler")
SECONDS = 30
NO_FLOW = "00000000-0000-0000-0000-000000000000"
PATHS = (
    "/ollama/",
    "/ollama/models",
    "/ollama/search?q=hi",
    "/ollama/static/main.js",
    "/ollama/static/vendor/lit-html/lit-html.js",
    f"/ollama/exchanges/{NO_FLOW}",
    f"/ollama/exchanges/{NO_FLOW}/sides",
    f"/ollama/exchanges/{NO_FLOW}/conversation",
    f"/ollama/exchanges/{NO_FLOW}/files/0/0",
)


@pytest.fixture(scope="module")
def lmstudio() -> Iterator[Sim]:
    with SimThread(models=models()) as sim:
        yield sim


@pytest.fixture(scope="module")
def started(lmstudio: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Web]]:
    state = tmp_path_factory.mktemp("state")
    with mitmweb(lmstudio.url, state_dir=state, options={"max_kept_size": "100000"}) as found:
        yield found


@pytest.fixture
def proxy(started: tuple[Proxy, Web]) -> Proxy:
    return started[0]


@pytest.fixture
def web(started: tuple[Proxy, Web], lmstudio: Sim) -> Iterator[Web]:
    """An empty list, and nothing that LM Studio remembers."""
    _, web = started
    web.http.post("/clear").raise_for_status()
    lmstudio.clear()
    lmstudio.scripts.clear()
    yield web
    assert "Traceback" not in started[0].log


def ask(proxy: Proxy, path: str = "/api/chat", **body: Any) -> httpx.Response:
    """Ask something, to the end of the answer."""
    with proxy.client() as client:
        return client.post(path, json={"model": CHAT, **body})


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def asked(proxy: Proxy, web: Web, path: str = "/api/chat", **body: Any) -> str:
    """Ask something; return the id of its flow, when that has ended."""
    known = {flow["id"] for flow in web.flows()}
    ask(proxy, path, **body)

    def is_it(flow: Flow) -> bool:
        return flow["id"] not in known and not row_of(web, flow["id"]).get("isOwn", False) and has_ended(flow)

    return str(web.flow(is_it)["id"])


def has_ended(flow: Flow) -> bool:
    return bool(flow.get("error") or (flow.get("response") or {}).get("timestamp_end"))


def row_of(web: Web, flow_id: str) -> dict[str, Any]:
    answer = web.http.get(f"/ollama/exchanges/{flow_id}")
    # One that is none of the bridge's has no row.
    return dict(answer.json()["row"]) if answer.status_code == 200 else {"isOwn": True}


def exchange(web: Web, flow_id: str, part: str = "") -> Any:
    return web.http.get(f"/ollama/exchanges/{flow_id}{part}").raise_for_status().json()


def again(web: Web, flow_id: str, **wanted: Any) -> httpx.Response:
    return web.http.post(f"/ollama/exchanges/{flow_id}/again", json=wanted)


def found(web: Web, text: str) -> list[str]:
    """Return the ids that a search finds, in their order."""
    return web.http.get("/ollama/search", params={"q": text}).raise_for_status().text.split()


class Told:
    """The page's WebSocket. What comes meanwhile waits in it."""

    def __init__(self, web: Web, **headers: str) -> None:
        self._loop = asyncio.new_event_loop()
        self.messages: list[dict[str, Any]] = []
        base = web.http.base_url
        request = HTTPRequest(f"ws://{base.host}:{base.port}/ollama/updates", headers={"Cookie": cookie(web)} | headers)
        try:
            self._connection: WebSocketClientConnection = self._loop.run_until_complete(self._connect(request))
        except BaseException:
            self._loop.close()
            raise

    async def _connect(self, request: HTTPRequest) -> WebSocketClientConnection:
        return await websocket_connect(request)

    def _read(self) -> str | bytes | None:
        async def read() -> str | bytes | None:
            return await asyncio.wait_for(self._connection.read_message(), SECONDS)

        return self._loop.run_until_complete(read())

    def next(self) -> dict[str, Any] | None:
        """Return the next message; None when the connection has ended."""
        text = self._read()
        if text is None:
            return None
        message: dict[str, Any] = json.loads(text)
        self.messages.append(message)
        return message

    def until(self, fits: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Read up to a message; return that."""
        while (message := self.next()) is not None:
            if fits(message):
                return message
        raise AssertionError(f"the connection has ended: {self.close_code}")

    def row(self, fits: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Read up to a row; return that."""
        message = self.until(lambda message: any(fits(row) for row in message.get("rows", ())))
        return next(row for row in message["rows"] if fits(row))

    def send(self, text: str) -> None:
        async def send() -> None:
            await self._connection.write_message(text)

        self._loop.run_until_complete(send())

    def follow(self, *ids: str) -> None:
        self.send(json.dumps({"follow": ids}))

    @property
    def close_code(self) -> int | None:
        return self._connection.close_code

    def close(self) -> None:
        async def close() -> None:
            self._connection.close()
            await asyncio.sleep(0)

        self._loop.run_until_complete(close())
        self._loop.close()


@contextmanager
def told(web: Web, **headers: str) -> Iterator[Told]:
    """Connect as the page does."""
    socket = Told(web, **headers)
    try:
        yield socket
    finally:
        socket.close()


def cookie(web: Web) -> str:
    return "; ".join(f"{name}={value}" for name, value in web.http.cookies.items())


def raw_get(web: Web, path: str, **headers: str) -> tuple[int, str]:
    """Ask for a path as it is, with no dot and no escape made anything else; return the status and the body."""
    connection = http.client.HTTPConnection(web.http.base_url.host, web.http.base_url.port or 80, timeout=SECONDS)
    try:
        connection.request("GET", path, headers={"Cookie": cookie(web)} | headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def upgrade(web: Web, **headers: str) -> int:
    """Ask for the WebSocket; return the status."""
    key = base64.b64encode(b"0123456789abcdef").decode()
    socket = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key}
    return raw_get(web, "/ollama/updates", **socket, **headers)[0]


# Who is let in


@pytest.mark.skipif(not HAS_LOGIN, reason="this mitmweb has no login")
@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_told_without_the_token(web: Web, path: str) -> None:
    with http_client(base_url=web.http.base_url) as stranger:
        answer = stranger.get(path)
        assert answer.status_code == 403
        assert not answer.text or "password" in answer.text
        assert stranger.get(path, params={"token": "wrong"}).status_code == 403


@pytest.mark.skipif(not HAS_LOGIN, reason="this mitmweb has no login")
def test_nothing_can_be_asked_without_the_token(proxy: Proxy, web: Web, lmstudio: Sim) -> None:
    flow_id = asked(proxy, web, messages=HI)
    lmstudio.clear()
    with http_client(base_url=web.http.base_url) as stranger:
        # A cookie against cross-site requests is no login.
        stranger.cookies.set("_mitmproxy_xsrf", "a" * 32)
        answer = stranger.post(f"/ollama/exchanges/{flow_id}/again", json={}, headers={"X-XSRFToken": "a" * 32})
        assert answer.status_code == 403
    assert upgrade(web, Cookie="a=b") == 403
    assert not lmstudio.requests


@pytest.mark.skipif(not HAS_LOGIN, reason="this mitmweb has no login")
def test_the_login_leads_to_the_page(web: Web) -> None:
    token = urlsplit(web.url).query.removeprefix("token=")
    with http_client(base_url=web.http.base_url) as person:
        assert 'name="token"' in person.get("/ollama/").text
        assert "static/main.js" in person.get("/ollama/", params={"token": token}).raise_for_status().text
        # From now on by the cookie.
        assert "static/main.js" in person.get("/ollama/").raise_for_status().text


@pytest.mark.parametrize("path", PATHS)
def test_a_page_of_another_name_reads_nothing(web: Web, path: str) -> None:
    """A name that leads to this machine, DNS rebinding, must not be enough, with or without a login."""
    status, text = raw_get(web, path, Host="attacker.example", Cookie="a=b")
    assert status == 403
    assert "static/main.js" not in text
    assert "import" not in text


@pytest.mark.parametrize("token", [None, "", "wrong", "2|aaaaaaaa|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa|1700000000"])
def test_a_request_of_another_site_is_refused(proxy: Proxy, web: Web, lmstudio: Sim, token: str | None) -> None:
    flow_id = asked(proxy, web, messages=HI)
    lmstudio.clear()
    headers = {"Cookie": cookie(web)} | ({} if token is None else {"X-XSRFToken": token})
    with http_client(base_url=web.http.base_url) as client:
        answer = client.post(f"/ollama/exchanges/{flow_id}/again", json={}, headers=headers)
    assert answer.status_code == 403
    assert not lmstudio.requests


@pytest.mark.parametrize("origin", ["http://attacker.example", "http://127.0.0.1:1", "null", "http://localhost"])
def test_a_socket_of_another_site_is_refused(web: Web, origin: str) -> None:
    assert upgrade(web, Origin=origin) == 403


def test_a_socket_of_this_page_is_let_in(web: Web) -> None:
    with told(web, Origin=str(web.http.base_url).rstrip("/")) as page:
        assert page.next() == {"reset": True, "count": 0}


OTHER_FILES = [
    "../handlers.py",
    "%2e%2e/handlers.py",
    "..%2fhandlers.py",
    "%2e%2e%2fhandlers.py",
    "..%5chandlers.py",
    "%252e%252e%252fhandlers.py",
    "vendor/../../handlers.py",
    "vendor%2f..%2f..%2fhandlers.py",
    "..//handlers.py",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "main.js%00.js",
    "main.js%0a",
    "main.js/",
    "index.html",
    "vendor/markdown-it/markdown-it.d.ts",
    "vendor",
    "MAIN.JS",
    "",
    ".",
    "..",
    "a" * 5000 + ".js",
]


@pytest.mark.parametrize("name", OTHER_FILES, ids=lambda name: name[:40])
def test_no_other_file_is_served(web: Web, name: str) -> None:
    status, text = raw_get(web, f"/ollama/static/{name}")
    assert status in (400, 403, 404)
    assert "import" not in text
    assert "root:" not in text


def test_the_address_without_a_slash_leads_to_the_page(web: Web) -> None:
    answer = web.http.get("/ollama")
    assert answer.status_code in (301, 302)
    assert answer.headers["location"] == "/ollama/"


# What it gets


def test_every_answer_has_the_headers_that_keep_it_safe(proxy: Proxy, web: Web) -> None:
    flow_id = asked(proxy, web, model=VISION, messages=[{"role": "user", "content": "hi", "images": [PNG]}])
    of_flow = f"/ollama/exchanges/{flow_id}"
    for path, status in {
        **dict.fromkeys(("/ollama/", "/ollama/models", "/ollama/search?q=hi", "/ollama/static/style.css"), 200),
        **dict.fromkeys((of_flow, f"{of_flow}/sides", f"{of_flow}/conversation", f"{of_flow}/files/0/0"), 200),
        **dict.fromkeys((f"{of_flow}/files/0/1", f"/ollama/exchanges/{NO_FLOW}", "/ollama/static/none.js"), 404),
        "/ollama/search": 400,
        f"{of_flow}/again": 405,
    }.items():
        answer = web.http.get(path)
        assert answer.status_code == status, path
        assert answer.headers["cache-control"] == "no-store", path
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert answer.headers["referrer-policy"] == "no-referrer", path
        assert answer.headers["x-frame-options"] == "DENY", path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy, path
        assert "unsafe" not in policy, path


def test_the_policy_names_this_host_only(web: Web) -> None:
    policy = web.http.get("/ollama/").headers["content-security-policy"]
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    host = f"{web.http.base_url.host}:{web.http.base_url.port}"
    assert rules["script-src"] == "'self'"
    assert rules["connect-src"] == f"'self' ws://{host} wss://{host}"
    assert rules["require-trusted-types-for"] == "'script'"
    for name in ("default-src", "base-uri", "frame-ancestors"):
        assert rules[name] == "'none'"
    assert "http" not in policy.replace("'self'", "")


def test_a_host_cannot_write_into_the_policy(web: Web) -> None:
    connection = http.client.HTTPConnection(web.http.base_url.host, web.http.base_url.port or 80, timeout=SECONDS)
    host = f"127.0.0.1:{web.http.base_url.port}; script-src *"
    connection.request("GET", "/ollama/", headers={"Cookie": cookie(web), "Host": host})
    answer = connection.getresponse()
    assert "script-src *" not in (answer.getheader("content-security-policy") or "")
    connection.close()


def test_all_that_the_page_loads_is_there(web: Web) -> None:
    page = web.http.get("/ollama/").text
    assert "{{" not in page
    for name in ("static/main.js", "static/style.css", "static/icon.svg"):
        assert f'"{name}"' in page
        assert web.http.get(f"/ollama/{name}").status_code == 200
    kinds = {"main.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"}
    for name, kind in kinds.items():
        assert web.http.get(f"/ollama/static/{name}").headers["content-type"].partition(";")[0] == kind


def picture(kind: str) -> bytes:
    data = BytesIO()
    Image.new("RGB", (3, 2), "red").save(data, kind)
    return data.getvalue()


SCRIPT = b"<script>alert(1)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
# What a client sends as a picture, and what is served of it.
PICTURES: dict[str, tuple[str, str]] = {
    "PNG": (base64.b64encode(picture("PNG")).decode(), "image/png"),
    "JPEG": (base64.b64encode(picture("JPEG")).decode(), "image/jpeg"),
    "GIF": (base64.b64encode(picture("GIF")).decode(), "image/gif"),
    "WebP": (base64.b64encode(picture("WEBP")).decode(), "image/webp"),
    "SVG": (base64.b64encode(SVG).decode(), ""),
    "HTML": (base64.b64encode(b"<!doctype html>" + SCRIPT).decode(), ""),
    "SVG that is called PNG": (f"data:image/png;base64,{base64.b64encode(SVG).decode()}", ""),
    "HTML that is called PNG": (f"data:image/png;base64,{base64.b64encode(SCRIPT).decode()}", ""),
    "PNG that is called HTML": (f"data:text/html;base64,{PNG}", "image/png"),
    "PNG with HTML in it": (base64.b64encode(base64.b64decode(PNG) + SCRIPT).decode(), "image/png"),
    "PDF": (base64.b64encode(b"%PDF-1.7 (alert)").decode(), ""),
    "XML": (base64.b64encode(b"<?xml version='1.0'?><x/>").decode(), ""),
    "nothing": ("", ""),
    "no base64": ("<script>alert(1)</script>", ""),
    "a link": ("http://attacker.example/x.png", ""),
    "a file": ("file:///etc/passwd", ""),
}


@pytest.mark.parametrize(("data", "kind"), PICTURES.values(), ids=PICTURES)
def test_what_is_no_picture_is_never_served_as_anything(proxy: Proxy, web: Web, data: str, kind: str) -> None:
    """By its bytes, whatever the client has called it. Also where the bridge has refused it."""
    url = data if data.startswith(("data:", "http")) else f"data:image/png;base64,{data}"
    part = {"type": "image_url", "image_url": {"url": url}}
    with marked(foreign=True):
        of_openai = asked(proxy, web, "/v1/chat/completions", messages=[{"role": "user", "content": [part]}])
    message = {"role": "user", "content": "", "images": [data]}
    for flow_id in (of_openai, asked(proxy, web, model=VISION, messages=[message])):
        answer = web.http.get(f"/ollama/exchanges/{flow_id}/files/0/0")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        if kind:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == kind
            assert "sandbox" in answer.headers["content-security-policy"]
        else:
            assert answer.status_code == 404
            assert answer.headers["content-type"].startswith("application/json")
            assert "<" not in answer.text


@pytest.mark.parametrize("place", ["0/1", "1/0", "99999999999999999999/0", "-1/0", "0/-1", "٠/0", "x/0"])
def test_there_is_no_picture_elsewhere(proxy: Proxy, web: Web, place: str) -> None:
    flow_id = asked(proxy, web, model=VISION, messages=[{"role": "user", "content": "hi", "images": [PNG]}])
    status, _ = raw_get(web, f"/ollama/exchanges/{flow_id}/files/{httpx.URL(path='/' + place).raw_path.decode()[1:]}")
    assert status in (403, 404)


def test_a_conversation_as_a_thread(proxy: Proxy, web: Web, lmstudio: Sim) -> None:
    lmstudio.script([content("One. ")], match="first", times=1)
    first = asked(proxy, web, messages=said("first"))
    messages = [*said("first"), {"role": "assistant", "content": "One. "}, *said("second")]
    second = asked(proxy, web, messages=messages)
    turns = exchange(web, second, "/conversation")
    assert [turn["row"]["id"] for turn in turns] == [first, second]
    assert [message["text"] for turn in turns for message in turn["messages"]] == ["first", "second"]
    assert [turn["answer"]["text"] for turn in turns] == ["One. ", "You said: second"]
    detail = exchange(web, second)
    assert detail["request"]["newAt"] == 2
    assert [message["role"] for message in detail["request"]["messages"]] == ["user", "assistant", "user"]


def test_what_belongs_to_no_conversation_is_told_as_that(proxy: Proxy, web: Web) -> None:
    with proxy.client() as client:
        client.get("/api/version").raise_for_status()
    flow_id = web.flow(lambda flow: flow["comment"].startswith("version"))["id"]
    answer = web.http.get(f"/ollama/exchanges/{flow_id}/conversation")
    assert answer.status_code == 404
    assert answer.json()["error"]


def test_both_sides(proxy: Proxy, web: Web, lmstudio: Sim) -> None:
    lmstudio.script([reasoning("Hm."), content("Yes", ".")], match="really")
    flow_id = asked(proxy, web, model=THINKING, messages=said("really"), options={"num_ctx": 4096, "seed": 3})
    sides = exchange(web, flow_id, "/sides")
    assert sides["client"]["line"] == "POST /api/chat"
    assert '"num_ctx": 4096' in sides["client"]["body"]
    assert sides["response"]["line"].startswith("200")
    assert sides["call"]["line"] == "POST /v1/chat/completions"
    assert '"seed": 3' in sides["call"]["body"]
    assert "num_ctx" not in sides["call"]["body"]
    assert any("num_ctx" in " ".join(line) for line in sides["changes"])
    assert sides["lmstudio"]["line"] == "200"
    says = " ".join(said_ for _, said_, _ in sides["events"])
    assert 'reasoning_content "Hm."' in says or 'reasoning "Hm."' in says
    assert 'content "Yes"' in says
    times = [at for at, _, _ in sides["events"]]
    assert times == sorted(times)
    assert times[0] > 0


def test_no_secret_is_told(proxy: Proxy, web: Web) -> None:
    secret = "sk-abcdefgh0123456789abcdefgh0123456789"
    with proxy.client(headers={"Authorization": f"Bearer {secret}"}) as client:
        client.post("/api/chat", json={"model": CHAT, "messages": said("who am I"), "stream": False})
    flow_id = web.flow(lambda flow: "who am I" in flow["comment"] and has_ended(flow))["id"]
    for part in ("", "/sides", "/conversation"):
        assert secret not in web.http.get(f"/ollama/exchanges/{flow_id}{part}").raise_for_status().text


def test_a_body_that_is_kept_in_part(proxy: Proxy, web: Web) -> None:
    flow_id = asked(proxy, web, messages=said("x" * 150_000))
    request = exchange(web, flow_id)["request"]
    assert "only 100" in request["problem"]
    assert "max_kept_size" in request["problem"]
    answer = again(web, flow_id)
    assert answer.status_code == 409
    assert "max_kept_size" in answer.json()["error"]


@pytest.mark.parametrize(
    "body", [b'{"model":"m","messages":[{"role":"user","content":"\xff\\ud800"}]}', b"{", b"[1]", b""]
)
def test_a_broken_request_is_shown_all_the_same(proxy: Proxy, web: Web, body: bytes) -> None:
    with proxy.client() as client, marked(foreign=True):
        client.post("/api/chat", content=body)
    flow_id = web.flow(lambda flow: flow["request"]["method"] == "POST" and has_ended(flow))["id"]
    for part in ("", "/sides"):
        exchange(web, flow_id, part)
    assert row_of(web, flow_id)["error"]


# What it is told as it is


def test_rows_come_as_they_change_and_go(proxy: Proxy, web: Web) -> None:
    earlier = asked(proxy, web, messages=said("earlier"))
    with told(web) as page:
        assert page.next() == {"reset": True, "count": len(web.flows())}
        assert page.row(lambda row: row["id"] == earlier)["prompt"] == "earlier"
        ask(proxy, messages=said("later"))
        later = page.row(lambda row: row.get("prompt") == "later" and "total" in row)
        assert later["model"] == CHAT
        assert later["isChat"]
        assert later["answerTokens"] > 0
        web.remove({"id": earlier})
        assert page.until(lambda message: message.get("removed")) == {"removed": [earlier]}
        web.http.post("/clear").raise_for_status()
        assert page.until(lambda message: message.get("reset")) == {"reset": True, "count": 0}


def test_a_failure_is_told(proxy: Proxy, web: Web) -> None:
    with told(web) as page:
        ask(proxy, model="no-such", messages=HI)
        row = page.row(lambda row: row.get("error"))
    assert "404 model 'no-such' not found" in row["error"]
    assert row["status"] == 404


def test_the_list_is_that_of_mitmwebs_filter(proxy: Proxy, web: Web) -> None:
    one, other = asked(proxy, web, messages=said("one")), asked(proxy, web, messages=said("other"))
    with told(web) as page:
        assert page.next() == {"reset": True, "count": len(web.flows())}
        # mitmweb's page filters by itself: this is how a command does it.
        web.option(view_filter="~bq other")
        try:
            reset = page.until(lambda message: message.get("reset") and message["count"] == 1)
            assert reset["count"] == 1
            assert page.row(lambda row: row["id"] == other)
            # What is hidden can be looked at by its address all the same.
            assert exchange(web, one)["row"]["prompt"] == "one"
            assert len(exchange(web, one, "/conversation")) == 1
        finally:
            web.option(view_filter="")


@contextmanager
def streaming(proxy: Proxy, lmstudio: Sim, *steps: Any, text: str = "stream") -> Iterator[None]:
    """Ask for an answer that comes meanwhile."""
    lmstudio.script(steps, match=text)
    thread = threading.Thread(target=ask, args=(proxy,), kwargs={"model": THINKING, "messages": said(text)})
    thread.start()
    try:
        yield
    finally:
        thread.join(SECONDS)


def test_an_answer_that_is_followed_comes_as_what_is_new(proxy: Proxy, web: Web, lmstudio: Sim) -> None:
    more, last = threading.Event(), threading.Event()
    steps = (reasoning("Hm", "."), content("One"), wait(more), content(" two"), wait(last), content(" three"))
    with told(web) as page:
        try:
            with streaming(proxy, lmstudio, *steps):
                flow_id = page.row(lambda row: row.get("isRunning"))["id"]
                page.follow(flow_id)

                def answer(text: str) -> dict[str, Any]:
                    joined = ""
                    while text not in joined:
                        message = page.until(lambda message: "answer" in message)
                        assert message["answer"]["id"] == flow_id
                        joined += message["answer"].get("text", "")
                    return message

                answer("One")
                thoughts = "".join(message.get("answer", {}).get("thinking", "") for message in page.messages)
                assert thoughts == "Hm."
                more.set()
                # Nothing of what was told before.
                assert answer(" two")["answer"]["text"] == " two"
                # From the beginning, for who looks at it anew.
                page.follow()
                page.follow(flow_id)
                assert answer("One two")["answer"]["text"] == "One two"
                last.set()
                page.row(lambda row: row["id"] == flow_id and not row.get("isRunning"))
        finally:
            more.set()
            last.set()
    pieces = [piece for message in page.messages for piece in message.get("answer", {}).get("events", ())]
    kinds = [(kind, text) for _, kind, text in pieces if kind]
    assert kinds[:3] == [("r", "Hm"), ("r", "."), ("t", "One")]
    detail = exchange(web, flow_id)
    assert [text for _, kind, text in detail["events"] if kind] == ["Hm", ".", "One", " two", " three"]
    assert detail["answer"]["text"] == "One two three"


def test_not_every_token_is_told(proxy: Proxy, web: Web, lmstudio: Sim) -> None:
    """The page is told a few times a second, however fast an answer comes, and nothing where nobody follows it."""
    with told(web) as page:
        began = time.monotonic()
        with streaming(proxy, lmstudio, content(*["word "] * 2000)):
            pass
        page.row(lambda row: row.get("prompt") == "stream" and row.get("total"))
        slices = (time.monotonic() - began) / 0.25
    assert len(page.messages) < 10 + 3 * slices
    assert not any("answer" in message for message in page.messages)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", "null", '{"follow": 5}', '{"other": []}', "[" * 100_000], ids=lambda text: text[:15]
)
def test_a_page_that_says_something_else_is_sent_away(web: Web, text: str) -> None:
    with told(web) as page:
        page.next()
        page.send(text)
        with pytest.raises(AssertionError, match="1003"):
            page.until(lambda message: False)


@pytest.mark.parametrize("text", ['{"follow": []}', '{"follow": ["no", "such", "flows"]}', '{"follow": [{}, null, 5]}'])
def test_what_is_not_there_is_not_followed(proxy: Proxy, web: Web, text: str) -> None:
    with told(web) as page:
        page.next()
        page.send(text)
        ask(proxy, messages=said("still told"))
        assert page.row(lambda row: row.get("prompt") == "still told")


# Search


def test_search(proxy: Proxy, web: Web, lmstudio: Sim) -> None:
    lmstudio.script(
        [content("The ca", "t sat on Grü", "ße aus Zürich 日", "本 😀", ' say "hi"\n\tline')], match="animals"
    )
    thought = [reasoning("Perhaps a gi", "raffe"), content("ok")]
    lmstudio.script(thought, match="thoughts")
    first = asked(proxy, web, messages=said("animals"))
    second = asked(proxy, web, model=THINKING, messages=said("thoughts"))
    third = asked(proxy, web, model="no-such", messages=said("animals"))
    # An answer comes in pieces; the case does not matter, nor how JSON writes it.
    for text, ids in {
        "cat sat": [first],
        "GRÜSSE AUS": [first],
        "日本": [first],
        "😀": [first],
        'say "hi"': [first],
        "giraffe": [second],
        "animals": [third, first],
        "not found": [third],
        "zebra": [],
        "<script>": [],
    }.items():
        assert found(web, text) == ids, text


def test_an_openai_answer_is_searched(proxy: Proxy, web: Web, lmstudio: Sim) -> None:
    lmstudio.script([content("ele", "phant")], match="large")
    body = {"messages": said("large"), "stream": True}
    assert found(web, "elephant") == []
    flow_id = asked(proxy, web, "/v1/chat/completions", **body)
    assert found(web, "elephant") == [flow_id]


# Ask again


def test_nothing_is_sent_before_it_is_asked(proxy: Proxy, web: Web, lmstudio: Sim) -> None:
    flow_id = asked(proxy, web, messages=HI)
    lmstudio.clear()
    with told(web) as page:
        page.next()
        for part in ("", "/sides", "/conversation"):
            exchange(web, flow_id, part)
        page.follow(flow_id)
        found(web, "hi")
        assert web.http.get("/ollama/models").json()
    assert not [request for request in lmstudio.requests if request.method == "POST"]


def bodies(sim: Sim) -> list[Any]:
    return [json.loads(request.body) for request in sim.requests if request.method == "POST"]


HISTORY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "two"},
]


def with_text(at: int, text: str) -> list[dict[str, str]]:
    return [{**message, "content": text} if at == n else message for n, message in enumerate(HISTORY)]


# What is asked again, with what; and what of the body that reached LM Studio is another one then.
AGAIN: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "nothing": ("/api/chat", {"messages": HISTORY}, {}, {}),
    "another model": ("/api/chat", {"messages": HISTORY}, {"changes": {"model": VISION}}, {"model": VISION}),
    "another temperature": (
        "/api/chat",
        {"messages": HISTORY, "options": {"temperature": 0.1}},
        {"changes": {"temperature": 0.9}},
        {"temperature": 0.9},
    ),
    "another system text": (
        "/api/chat",
        {"messages": HISTORY},
        {"system": "Be long."},
        {"messages": with_text(0, "Be long.")},
    ),
    "no system text": ("/api/chat", {"messages": HISTORY}, {"system": ""}, {"messages": HISTORY[1:]}),
    "a system text where none was": (
        "/api/chat",
        {"messages": HISTORY[1:]},
        {"system": "Be long."},
        {"messages": with_text(0, "Be long.")},
    ),
    "another message": (
        "/api/chat",
        {"messages": HISTORY},
        {"messages": {"3": "three"}},
        {"messages": with_text(3, "three")},
    ),
    "an earlier message": (
        "/api/chat",
        {"messages": HISTORY},
        {"messages": {"1": "1?"}},
        {"messages": with_text(1, "1?")},
    ),
    "all of it, of OpenAI's API": (
        "/v1/chat/completions",
        {"messages": HISTORY, "stream": True},
        {"changes": {"model": VISION, "temperature": 0}, "system": "Be long.", "messages": {"3": "three"}},
        {
            "model": VISION,
            "temperature": 0,
            "messages": [{"role": "system", "content": "Be long."}, *with_text(3, "three")[1:]],
        },
    ),
}


@pytest.mark.parametrize(("path", "body", "wanted", "changed"), AGAIN.values(), ids=AGAIN)
def test_what_reaches_lmstudio(
    proxy: Proxy,
    web: Web,
    lmstudio: Sim,
    path: str,
    body: dict[str, Any],
    wanted: dict[str, Any],
    changed: Mapping[str, Any],
) -> None:
    flow_id = asked(proxy, web, path, **body)
    (before,) = bodies(lmstudio)
    lmstudio.clear()
    made = again(web, flow_id, **wanted).raise_for_status().json()["id"]
    web.flow(lambda flow: flow["id"] == made and has_ended(flow))
    (now,) = bodies(lmstudio)
    assert now == before | changed
    row = row_of(web, made)
    assert row["repeats"] == flow_id
    assert not row.get("error")


@pytest.mark.parametrize("text", ["5", "[]", '"x"', "null"])
def test_what_is_no_wish_is_refused(proxy: Proxy, web: Web, lmstudio: Sim, text: str) -> None:
    flow_id = asked(proxy, web, messages=HI)
    lmstudio.clear()
    headers = {"Content-Type": "application/json"}
    answer = web.http.post(f"/ollama/exchanges/{flow_id}/again", content=text, headers=headers)
    assert (answer.status_code, answer.json()) == (400, {"error": "an object is wanted"})
    for content_, kind in ((b"{", "application/json"), (b"{}", "text/plain"), (b"\xff", "application/json")):
        answer = web.http.post(f"/ollama/exchanges/{flow_id}/again", content=content_, headers={"Content-Type": kind})
        assert answer.status_code == 400
    assert not lmstudio.requests


def test_what_cannot_be_asked_again_says_why(proxy: Proxy, web: Web, lmstudio: Sim) -> None:
    with proxy.client() as client:
        client.get("/api/version").raise_for_status()
    flow_id = web.flow(lambda flow: flow["comment"].startswith("version"))["id"]
    answer = again(web, flow_id)
    assert (answer.status_code, answer.json()) == (409, {"error": "it asks no model"})
    assert again(web, NO_FLOW).status_code == 404
    assert not [request for request in lmstudio.requests if request.method == "POST"]


def test_a_message_that_is_not_there_is_not_asked_as_if_it_were(proxy: Proxy, web: Web, lmstudio: Sim) -> None:
    flow_id = asked(proxy, web, messages=HISTORY)
    lmstudio.clear()
    answer = again(web, flow_id, messages={"99": "lost"})
    assert answer.status_code == 409
    assert not lmstudio.requests


# What else may happen to mitmweb

COUNT_ROUTES = """\
from collections.abc import Sequence
from mitmproxy import command, ctx

def patterns(router):
    for rule in router.rules:
        if hasattr(rule.target, "rules"):
            yield from patterns(rule.target)
        elif hasattr(rule.matcher, "regex"):
            yield rule.matcher.regex.pattern

class Routes:
    @command.command("test.routes")
    def routes(self) -> Sequence[str]:
        return [pattern for pattern in patterns(ctx.master.app.default_router) if pattern.startswith("/ollama")]

addons = [Routes()]
"""


def test_the_script_is_loaded_anew(lmstudio: Sim, start_proxy: StartProxy, tmp_path: Path) -> None:
    script, counting = copy_of_addon(tmp_path), tmp_path / "count.py"
    counting.write_text(COUNT_ROUTES)
    proxy = start_proxy(lmstudio.url, "-s", str(counting), *Web.arguments(), tool="mitmweb", script=script)
    proxy.wait_for_log(r"\(\d+ models\)")
    web = Web(proxy)
    routes = web.command("test.routes")["value"]
    assert len(routes) == len(set(routes)) > 8
    flow_id = asked(proxy, web, messages=said("before"))
    with told(web) as page:
        page.row(lambda row: row["id"] == flow_id)
        touch(script)
        # The page connects again, to the new version.
        while page.next() is not None:
            pass
    proxy.wait_for(lambda: web.command("test.routes")["value"] == routes)
    proxy.wait_for(proxy.answers)
    with told(web) as page:
        assert page.row(lambda row: row["id"] == flow_id)["prompt"] == "before"
        ask(proxy, messages=said("after"))
        assert page.row(lambda row: row.get("prompt") == "after")
    made = again(web, flow_id).raise_for_status().json()["id"]
    assert web.flow(lambda flow: flow["id"] == made and has_ended(flow))
    web.http.close()
    assert "Traceback" not in proxy.log


def test_a_saved_file_shows_the_same_page(
    proxy: Proxy, web: Web, lmstudio: Sim, start_proxy: StartProxy, tmp_path: Path
) -> None:
    lmstudio.script([reasoning("Hm."), words("It is **blue**.")], match="colour")
    flow_id = asked(proxy, web, model=THINKING, messages=[{"role": "user", "content": "colour", "images": [PNG]}])
    path = tmp_path / "flows"
    web.command("save.file", "~all", str(path))
    parts = ("", "/sides", "/conversation")
    before = [exchange(web, flow_id, part) for part in parts]
    reader = start_proxy(None, "-n", "-r", str(path), *Web.arguments(), tool="mitmweb", wait=False)
    saved = Web(reader)
    saved.flow(lambda flow: flow["id"] == flow_id)
    after = [exchange(saved, flow_id, part) for part in parts]
    # mitmproxy gives the requests of a file the host that it would send them to.
    assert [side["call"].pop("headers") != [] for side in (before[1], after[1])] == [True, True]
    assert after == before
    picture_of = saved.http.get(f"/ollama/exchanges/{flow_id}/files/0/0").raise_for_status()
    assert picture_of.content == base64.b64decode(PNG)
    assert found(saved, "is **blue") == [flow_id]
    with told(saved) as page:
        assert page.row(lambda row: row["id"] == flow_id) == before[0]["row"]
    # There is no LM Studio: that is said, and the page goes on.
    answer = saved.http.get("/ollama/models")
    assert answer.status_code == 502
    assert "reachable" in answer.json()["error"]
    saved.http.close()
    assert "Traceback" not in reader.log


@pytest.mark.usefixtures("started_anew")
def test_without_mitmweb_nothing_of_it_is_loaded(lmstudio: Sim, start_proxy: StartProxy, tmp_path: Path) -> None:
    script = tmp_path / "modules.py"
    script.write_text(LOADED_MODULES)
    proxy = start_proxy(lmstudio.url, "-s", str(script))
    ask(proxy, messages=HI)
    loaded = loaded_modules(proxy, script)
    assert "ollama_lmstudio.addon" in loaded
    of_the_page = ("ollama_lmstudio.page", "ollama_lmstudio.internals.web_app", "tornado")
    assert {name for name in loaded if name.startswith(of_the_page)} == {
        "ollama_lmstudio.page",
        "ollama_lmstudio.page.mount",
    }
