"""What LM Studio has nothing for, in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from ollama_lmstudio.services import Services
from ollama_lmstudio.translate import unsupported

MakeServices = Callable[..., Services]


def test_what_is_unsupported_is_logged_once(make_services: MakeServices, caplog: pytest.LogCaptureFixture) -> None:
    services = make_services()
    with caplog.at_level(logging.INFO):
        unsupported.log_unsupported(["mirostat", "num_gpu"], services)
        unsupported.log_unsupported(["num_gpu", "mirostat"], services)
    assert [record.args for record in caplog.records] == [("mirostat",), ("num_gpu",)]


def test_names_that_clients_make_up_fill_no_log(make_services: MakeServices, caplog: pytest.LogCaptureFixture) -> None:
    services = make_services()
    with caplog.at_level(logging.INFO):
        unsupported.log_unsupported([f"unheard{number}" for number in range(2000)], services)
        assert len(caplog.records) == len(services.logged_once) == unsupported.LOGGED_PER_REQUEST
        for number in range(1000):
            unsupported.log_unsupported([f"unheard{number}"], services)
    assert len(caplog.records) == len(services.logged_once) == unsupported.LOGGED_IN_ALL


def test_names_that_clients_make_up_forge_no_line(
    make_services: MakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    services = make_services()
    with caplog.at_level(logging.INFO):
        unsupported.log_unsupported(["x\n[12:00] \x1b[31mforged\u2028\ud800", "y" * 5000], services)
    assert [record.args for record in caplog.records] == [
        ("x\\n[12:00] \\x1b[31mforged\\u2028\\ud800",),
        ("y" * unsupported.LOGGED_CHARACTERS + "...",),
    ]
    assert all(line.isprintable() for line in caplog.messages)
