"""Headers that show a mask and send the secret."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
from mitmproxy import ctx, http, io
from mitmproxy.addons import export
from mitmproxy.net.http import http1
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.test import tflow

from ollama_lmstudio.internals import headers

SECRETS = {"Authorization": "Bearer s3cret", "X-Loopback-Secret": "s3same"}


def sealed() -> headers.SealedHeaders:
    return headers.SealedHeaders(((b"Host", b"h"), (b"authorization", b"old")), SECRETS)


def test_the_wire_gets_the_secret() -> None:
    request = http.Request.make("POST", "http://h/", b"x")
    request.headers = sealed()
    head = http1.assemble_request_head(request)
    assert b"authorization: Bearer s3cret\r\n" in head
    assert b"X-Loopback-Secret: s3same\r\n" in head
    assert b"old" not in head


def test_whatever_shows_headers_gets_the_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctx, "options", SimpleNamespace(export_preserve_original_ip=False), raising=False)
    flow = tflow.tflow()
    flow.request.headers = sealed()
    assert flow.request.headers["Authorization"] == "Bearer ***"
    shown = [
        repr(flow.request.headers),
        repr(flow.request.headers.fields),
        str(dict(flow.request.headers)),
        repr(flow.get_state()),
        repr(bytes(flow.request.headers.copy())),
        repr(bytes(flow.copy().request.headers)),
        export.curl_command(flow),
        repr(export.raw_request(flow)),
    ]
    with (tmp_path / "flows").open("wb") as file:
        io.FlowWriter(file).add(flow)
    shown.append(repr((tmp_path / "flows").read_bytes()))
    for text in shown:
        assert "s3cret" not in text
        assert "s3same" not in text


def test_secrets_are_forgotten() -> None:
    headers = sealed()
    headers.forget()
    assert b"s3" not in bytes(headers)


def test_what_somebody_else_puts_there_is_sent() -> None:
    headers = sealed()
    headers["Authorization"] = "Basic mine"
    assert b"authorization: Basic mine\r\n" in bytes(headers)
    del headers["X-Loopback-Secret"]
    assert b"Loopback" not in bytes(headers)


def test_secrets_are_sealed_again_after_a_revert() -> None:
    reverted = http.Headers(sealed().fields)
    assert b"s3cret" not in bytes(reverted)
    again = sealed().sealed_again(reverted)
    assert b"authorization: Bearer s3cret\r\n" in bytes(again)
    assert again["Authorization"] == "Bearer ***"


def test_this_mitmproxy_sends_the_secret() -> None:
    headers.check()
    # What is checked is what is used.
    assert "http1.assemble_request_head(request)" in inspect.getsource(_http1.Http1Client.send)


def by_fields(request: http.Request) -> bytes:
    return b"".join(b"%s: %s\r\n" % field for field in request.headers.fields)


def with_both(request: http.Request) -> bytes:
    return by_fields(request) + bytes(request.headers)


@pytest.mark.parametrize("assemble", [by_fields, with_both])
def test_a_mitmproxy_that_shows_the_mask_to_lm_studio_is_refused(
    assemble: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "assemble_request_head", assemble)
    with pytest.raises(headers.NotSealed, match="it would send"):
        headers.check()
