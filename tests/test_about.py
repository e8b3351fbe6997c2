"""What --version and --licenses tell, from a source tree and from what a binary bundles."""

from __future__ import annotations

import io
import platform
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ollama_lmstudio import __version__, about, cli, streams


def test_the_first_line_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.command(["--version"], {})
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"ollama-lmstudio-proxy {__version__}"
    assert lines[1] == f"mitmproxy {metadata.version('mitmproxy')}"
    assert lines[2] == f"Python {platform.python_version()}"
    assert lines[3].startswith("platform ")
    assert lines[4] == f"stand-in for LM Studio (--demo) ollama_lmstudio.sim {__version__}"
    assert lines[5].startswith("page in mitmweb: lit-html ")
    assert len(lines) == 6


def test_without_a_binary_licenses_are_those_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.command(["--licenses"], {})
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "lit-html 3.3.3: BSD-3-Clause" in told
    assert "Redistributions of source code must retain" in told
    assert "Vitaly Puzrin" in told
    assert "pip show" in told


def test_the_versions_of_the_libraries_of_the_page() -> None:
    texts = {name: (about.VENDOR / name / f"{name}.js").read_text(encoding="utf-8") for name, _, _ in about.PAGE}
    for name, version, _ in about.PAGE:
        assert version in texts[name]


def test_what_is_bundled_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notices.json"
    about.write(
        [about.Notice("b", "2", "MIT", "Text of b"), about.Notice("Mitmproxy", "1.2.3", "MIT", "Text of mitmproxy")],
        ["libz.so.1", "libz.so.1"],
        path,
    )
    told = about.version(path).splitlines()
    assert told[1] == "mitmproxy 1.2.3"
    assert told[-3:] == [
        "  b 2: MIT",
        "  Mitmproxy 1.2.3: MIT",
        "Libraries of the system that this was built on: libz.so.1",
    ]
    texts = about.licenses(path)
    assert texts.index("b 2: MIT") < texts.index("Text of b") < texts.index("Mitmproxy 1.2.3: MIT")


def test_licences_are_those_of_the_metadata() -> None:
    notice = about.notice_of(metadata.distribution("mitmproxy"))
    assert (notice.name, notice.version) == ("mitmproxy", metadata.version("mitmproxy"))
    assert "Permission is hereby granted" in notice.text


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ("License-Expression: MIT\nClassifier: License :: OSI Approved :: BSD License", "MIT"),
        ("Classifier: License :: OSI Approved\nClassifier: License :: OSI Approved :: BSD License", "BSD License"),
        ("License: Apache-2.0\n        and what follows", "Apache-2.0"),
        (f"License: {'x' * 61}", about.UNNAMED),
        ("Keywords: none", about.UNNAMED),
    ],
    ids=["expression", "classifier", "field", "a whole text", "none"],
)
def test_the_name_of_a_licence(tmp_path: Path, fields: str, name: str) -> None:
    folder = tmp_path / "x-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: x\nVersion: 1\n{fields}\n", encoding="utf-8")
    (found,) = metadata.distributions(path=[str(tmp_path)])
    assert about.notice_of(found).license == name


def test_letters_that_the_console_does_not_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "notices.json"
    about.write([about.Notice("a", "1", "MIT", "Copyright \u0141ukasz")], [], path)
    monkeypatch.setattr(about.licenses, "__defaults__", (path,))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "cp1252", write_through=True))
    # As the program begins.
    streams.accept_any_text()
    with pytest.raises(SystemExit):
        cli.command(["--licenses"], {})
    assert b"Copyright ?ukasz" in written.getvalue()
