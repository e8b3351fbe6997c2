"""Who may come in: hosts, origins and keys."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio import access
from ollama_lmstudio.access import Gate

HOST = "localhost:11434"
PAGE = "http://localhost:3000"


def gate(*origins: str, hosts: tuple[str, ...] = (), key: str = "", loopback: bool = True) -> Gate:
    return Gate.make(origins, hosts, key, loopback=loopback)


def headers(answer: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in answer.headers:
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:11434", "localhost"),
        (" localhost ", "localhost"),
        ("example.org.", "example.org"),
        ("example.org.:80", "example.org"),
        ("127.0.0.1:11434", "127.0.0.1"),
        ("[::1]:11434", "::1"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("[fe80::1%eth0]:1", "fe80::1%eth0"),
        ("example.org:http", "example.org:http"),
        ("", ""),
        (":80", ":80"),
    ],
)
def test_split_host(host: str, name: str) -> None:
    assert access.split_host(host) == name


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "LOCALHOST:11434",
        "localhost.",
        "my-machine",
        "my-machine:11434",
        "machine.local",
        "machine.local.:11434",
        "a.b.localhost",
        "host.docker.internal:11434",
        "127.0.0.1",
        "127.0.0.1:11434",
        "0.0.0.0:11434",
        "192.168.1.2",
        "169.254.1.2",
        "100.64.0.1:80",
        "[::1]:11434",
        "[::]",
        "::1",
        "[2001:db8::1]:80",
        "[fe80::1%eth0]:11434",
        "ours.example",
        "OURS.example.:11434",
        "ported.example",
        "ollama.home.arpa",
        "ollama.apps.lan",
        "ollama.lan:11434",
        "OLLAMA.HOME",
        "ai.intranet",
        "ai.corp.",
        "nas.private:80",
        "ollama.test",
    ],
)
def test_hosts_that_are_let_in(host: str, loopback: bool) -> None:
    assert gate(hosts=("ours.example", "Ported.Example:11434"), loopback=loopback).allows_host(host)


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:11434",
        "evil.com.",
        "evil.com:http",
        "localhost.evil.com",
        "127.0.0.1.evil.com",
        "evil.com%127.0.0.1",
        "127.0.0.1%evil.com",
        "[evil.com]:80",
        "local.evil",
        "evil.localx",
        "xlocalhost.com",
        "sub.ours.example",
        "1.2.3",
        "256.1.1.1",
        "127.0.0.1:11434:evil.com",
        "evil.arpa",
        "nothome.arpa",
        "lan.evil.com",
        "evil.xlan",
        "nas.fritz.box",
        "box.tailnet-1234.ts.net",
    ],
)
def test_hosts_that_are_refused(host: str, loopback: bool) -> None:
    refusing = gate(hosts=("ours.example",), loopback=loopback)
    assert not refusing.allows_host(host)
    answer = access.check(refusing, "GET", host, {}, ("GET",))
    assert answer is not None
    assert (answer.status, answer.content_type, answer.headers) == (403, "application/json; charset=utf-8", ())
    text = json.loads(answer.body)["error"]
    assert repr(access.split_host(host)) in text
    assert "option allowed_hosts" in text


def test_public_addresses_of_other_machines_are_refused_on_loopback_as_in_ollama() -> None:
    for host in ("8.8.8.8", "8.8.8.8:80", "[2606:4700::1111]:11434"):
        assert not gate().allows_host(host)
        assert gate(hosts=(access.split_host(host),)).allows_host(host)
        assert gate(loopback=False).allows_host(host)


def test_a_public_address_of_this_machine_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bound:
        """A socket that can be bound to any address."""

        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Bound:
            return self

        def __exit__(self, *_: object) -> None: ...

        def bind(self, address: tuple[str, int]) -> None:
            assert address == ("8.8.8.8", 0)

    monkeypatch.setattr("socket.socket", Bound)
    assert gate().allows_host("8.8.8.8:11434")


def test_a_refused_host_is_told_to_the_page_of_an_origin_that_may_ask() -> None:
    for key, host in (("", "evil.com"), ("k", HOST)):
        answer = access.check(gate(key=key), "POST", host, {"origin": PAGE}, ("POST",))
        assert answer is not None
        assert headers(answer) == {"Access-Control-Allow-Origin": [PAGE], "Vary": ["Origin"]}


def test_a_refused_host_is_told_the_methods_by_options() -> None:
    answer = access.check(gate(), "OPTIONS", "8.8.8.8", {}, ("POST",))
    assert answer is not None
    assert (answer.status, answer.headers) == (403, (("Allow", "POST"),))


@pytest.fixture
def names_of_this_machine() -> Iterator[None]:
    """Let a test say them."""
    access.own_names.cache_clear()
    yield
    access.own_names.cache_clear()


def wait_until_allowed(host: str) -> None:
    end = time.monotonic() + 5
    while not gate().allows_host(host):
        assert time.monotonic() < end, host
        time.sleep(0.01)


@pytest.mark.usefixtures("names_of_this_machine")
def test_this_machines_own_names_are_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Box.Example")
    monkeypatch.setattr("socket.getfqdn", lambda: "Box.Corp.Example")
    assert gate().allows_host("box.example:11434")
    wait_until_allowed("box.corp.example:11434")
    assert not gate().allows_host("other.corp.example")


@pytest.mark.usefixtures("names_of_this_machine")
def test_this_machines_full_name_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no DNS server answers, to look it up takes seconds."""
    asked, answered = threading.Event(), threading.Event()

    def answer() -> str:
        asked.set()
        assert answered.wait(10)
        return "box.corp.example"

    monkeypatch.setattr("socket.getfqdn", answer)
    made = [gate(), gate()]
    assert asked.wait(5)
    assert not made[0].allows_host("box.corp.example")
    answered.set()
    wait_until_allowed("box.corp.example")
    assert all(one.allows_host("box.corp.example") for one in made), "it is looked up once"


@pytest.mark.usefixtures("names_of_this_machine")
def test_a_full_name_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that fails would print a traceback; pytest makes it an error."""

    def fail() -> str:
        raise UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "no UTF-8")

    monkeypatch.setattr("socket.getfqdn", fail)
    assert not gate().allows_host("box.corp.example")
    for thread in threading.enumerate():
        if thread.name == "own name":
            thread.join(5)


@pytest.mark.parametrize(
    "origin",
    [
        *[
            f"{scheme}://{host}{port}"
            for scheme in ("http", "https")
            for host in ("localhost", "127.0.0.1", "0.0.0.0")
            for port in ("", ":3000")
        ],
        "app://obsidian.md",
        "file://",
        "tauri://localhost",
        "vscode-webview://1a2b",
        "vscode-file://vscode-app",
        # Ollama's wildcard is a beginning and an end, with anything between.
        "http://localhost:1.evil.com",
    ],
)
def test_origins_that_ollama_lets_in(origin: str) -> None:
    assert gate().allows_origin(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "chrome-extension://abcdef",
        "moz-extension://abcdef",
        "http://evil.com",
        "http://localhost.evil.com",
        "http://[::1]:3000",
        "ftp://localhost",
        "HTTP://LOCALHOST",
        "xapp://a",
        "*",
    ],
)
def test_origins_that_ollama_refuses(origin: str) -> None:
    assert not gate().allows_origin(origin)
    for method in ("GET", "POST", "OPTIONS", "HEAD"):
        answer = access.check(gate(), method, HOST, {"origin": origin}, ("GET",))
        assert answer is not None
        assert (answer.status, answer.body, answer.content_type) == (403, b"", "")


@pytest.mark.parametrize(
    ("allowed", "origin", "passes"),
    [
        ("http://a.example", "http://a.example", True),
        ("http://a.example", "http://a.example:80", False),
        ("chrome-extension://*", "chrome-extension://abc", True),
        ("https://*.example", "https://a.b.example", True),
        ("https://*.example", "https://example", False),
        ("https://*.example", "https://a.example.evil", False),
        ("*.example", "https://a.example", True),
        ("aba*ba", "aba", False),
        ("aba*ba", "ababa", True),
        ("null", "null", True),
        ("*", "anything", True),
    ],
)
def test_added_origins(allowed: str, origin: str, passes: bool) -> None:
    assert gate(allowed).allows_origin(origin) is passes


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_a_wildcard_stands_for_anything(before: str, middle: str, after: str) -> None:
    before, after = before.replace("*", ""), after.replace("*", "")
    assert gate(f"{before}*{after}").allows_origin(before + middle + after)


@pytest.mark.parametrize("origin", [f"http://{HOST}", f"https://{HOST}"])
def test_the_server_itself_is_no_other_origin(origin: str) -> None:
    assert access.is_same_origin(origin, HOST)
    assert access.check(gate(), "GET", HOST, {"origin": origin}, ("GET",)) is None


def test_a_page_whose_name_leads_here_is_refused() -> None:
    answer = access.check(gate(), "GET", "evil.com", {"origin": "http://evil.com"}, ("GET",))
    assert answer is not None
    assert (answer.status, answer.headers) == (403, ())


def test_cors_headers() -> None:
    assert access.cors_headers(gate(), PAGE) == (("Access-Control-Allow-Origin", PAGE), ("Vary", "Origin"))
    assert access.cors_headers(gate("*"), PAGE) == (("Access-Control-Allow-Origin", "*"),)


@pytest.mark.parametrize("allow", [("HEAD", "GET"), ()])
def test_preflight(allow: tuple[str, ...]) -> None:
    answer = access.check(gate(key="k"), "OPTIONS", HOST, {"origin": PAGE}, allow)
    assert answer is not None
    assert (answer.status, answer.body, answer.content_type) == (204, b"", "")
    found = headers(answer)
    assert found["Access-Control-Allow-Origin"] == [PAGE]
    assert found["Access-Control-Allow-Methods"] == ["GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"]
    assert found["Access-Control-Allow-Headers"] == [
        "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,"
        "X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,"
        "X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
        "X-Stainless-Runtime-Version,X-Stainless-Timeout"
    ]
    assert found["Access-Control-Max-Age"] == ["43200"]
    assert found["Vary"] == ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"]
    assert found.get("Allow") == (["HEAD, GET"] if allow else None)
    assert "Access-Control-Allow-Credentials" not in found


def test_preflight_where_every_origin_may_come() -> None:
    answer = access.check(gate("*"), "OPTIONS", HOST, {"origin": "http://evil.com"}, ("POST",))
    found = headers(answer)
    assert found["Access-Control-Allow-Origin"] == ["*"]
    assert "Vary" not in found


@pytest.mark.parametrize(
    ("host", "loopback", "origin", "answered"),
    [
        ("localhost:11434", True, "", True),
        ("my-machine.local", True, "", True),
        ("127.0.0.1:11434", True, "", False),
        ("[::1]:11434", True, "", False),
        ("localhost:11434", False, "", False),
        ("localhost:11434", True, f"http://{HOST}", False),
    ],
)
def test_options_without_another_origin(host: str, loopback: bool, origin: str, answered: bool) -> None:
    """Where it is not answered here, the router says 405 or 404."""
    given_headers = {"origin": origin} if origin else {}
    for key, status in (("", None), ("k", 401)):
        answer = access.check(gate(loopback=loopback, key=key), "OPTIONS", host, given_headers, ("POST",))
        assert (answer and answer.status) == (204 if answered else status)
        if answered:
            assert answer is not None
            assert (answer.body, answer.headers) == (b"", (("Allow", "POST"),))


def test_refused_preflights_tell_the_methods() -> None:
    answer = access.check(gate(), "OPTIONS", HOST, {"origin": "http://evil.com"}, ("HEAD", "GET"))
    assert answer is not None
    assert answer.headers == (("Allow", "HEAD, GET"),)


@pytest.mark.parametrize(
    ("given_headers", "passes"),
    [
        ({"authorization": "Bearer secret"}, True),
        ({"authorization": "bearer   secret "}, True),
        ({"x-api-key": "secret"}, True),
        ({"authorization": "Bearer wrong", "x-api-key": "secret"}, True),
        ({"authorization": "Bearer secret", "x-api-key": "wrong"}, True),
        ({}, False),
        ({"authorization": ""}, False),
        ({"authorization": "Bearer"}, False),
        ({"authorization": "Bearer "}, False),
        ({"authorization": "secret"}, False),
        ({"authorization": "Basic secret"}, False),
        ({"authorization": "Bearer secre"}, False),
        ({"authorization": "Bearer secrett"}, False),
        ({"authorization": "Bearer \udcff"}, False),
        ({"x-api-key": "Bearer secret"}, False),
        ({"x-api-key": "s\udcffcret"}, False),
    ],
)
def test_the_key(given_headers: dict[str, str], passes: bool) -> None:
    with_key = gate(key="secret")
    assert with_key.has_key(given_headers) is passes
    for method in ("GET", "POST", "DELETE", "HEAD"):
        answer = access.check(with_key, method, HOST, given_headers, ("GET",))
        assert answer == (None if passes else access.UNAUTHORIZED)


@pytest.mark.parametrize("given_headers", [{}, {"authorization": "Bearer anything"}, {"x-api-key": "\udcff"}])
def test_without_a_key_anything_is_taken(given_headers: dict[str, str]) -> None:
    assert access.check(gate(), "POST", HOST, given_headers, ("POST",)) is None


def test_a_byte_that_is_no_text_is_not_a_question_mark() -> None:
    assert not gate(key="a?b").has_key({"x-api-key": "a\udcffb"})


def test_what_turns_away_says_nothing_of_the_path() -> None:
    assert access.UNAUTHORIZED.status == 401
    assert access.UNAUTHORIZED.body == b'{"error":"unauthorized"}'
    assert (access.FORBIDDEN.status, access.FORBIDDEN.body, access.FORBIDDEN.headers) == (403, b"", ())
