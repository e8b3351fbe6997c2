"""The command line tool: flags become mitmproxy's options."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.options import Options
from mitmproxy.tools import cmdline
from tests.wire.conftest import free_port

from ollama_lmstudio import bundled, cli, options

with warnings.catch_warnings():
    # mitmproxy's filters are made with names that pyparsing has given up.
    warnings.simplefilter("ignore", DeprecationWarning)
    from mitmproxy.tools.dump import DumpMaster
    from mitmproxy.tools.web.master import WebMaster


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What mitmproxy is told by a file of the person who runs the tests does not count."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def arguments(*given: str) -> list[str]:
    return cli.command(given, {})[1]


def set_options(*given: str) -> list[str]:
    """Give what mitmproxy's `--set` gets, but for the mode, which the script sets."""
    found = arguments(*given)
    return [found[i + 1] for i, part in enumerate(found) if part == "--set" and found[i + 1] != "mode"]


def test_nothing_given() -> None:
    """mitmproxy starts without a mode: it opens no port before the script is loaded."""
    there = ["-s", str(bundled.script()), "--set", "termlog_verbosity=info", "--set", "mode"]
    assert cli.command([], {}) == ("mitmdump", there)


def test_a_mode_of_the_users_is_passed_on(tmp_path: Path) -> None:
    assert arguments("--set", "mode=socks5")[4:] == ["--set", "mode=socks5"]
    # mitmproxy lets its own flag win over --set.
    assert arguments("--mode", "socks5")[4:] == ["--set", "mode", "--mode", "socks5"]
    file = tmp_path / "my.yaml"
    file.write_text("mode: [socks5]")
    assert arguments("--config", str(file))[4:] == ["--set", "mode=socks5"]


@pytest.mark.parametrize("option", [o for o in options.OPTIONS if o.typespec in (str, int)], ids=lambda o: o.name)
def test_every_option_is_a_flag_with_dashes_and_underscores(option: options.Option) -> None:
    value = {
        "listen": "127.0.0.1:1",
        "lmstudio_url": "https://h/x",
        "ollama_version": "1.2.3",
        "num_ctx": "load",
        "own_calls": "all",
        "metrics": "local",
    }.get(option.name, "chat" if option.choices else "4096")
    for name in (option.name, option.name.replace("_", "-")):
        assert f"{option.name}={value}" in set_options(f"--{name}", value)
        assert f"{option.name}={value}" in set_options(f"--{name}={value}")


@pytest.mark.parametrize("option", [o for o in options.OPTIONS if o.typespec is bool], ids=lambda o: o.name)
def test_every_switch_is_a_flag(option: options.Option) -> None:
    for name in (option.name, option.name.replace("_", "-")):
        assert f"{option.name}=true" in set_options(f"--{name}")
        assert f"{option.name}=false" in set_options(f"--no-{name}")


def test_lists_are_given_one_by_one() -> None:
    assert set_options("--allowed_hosts", "a", "--allowed-hosts", "b")[1:] == ["allowed_hosts=a", "allowed_hosts=b"]


@pytest.mark.parametrize("flag", ["--log-level", "--log_level"])
def test_log_level_is_mitmproxys_verbosity(flag: str) -> None:
    assert set_options(flag, "debug") == ["termlog_verbosity=debug"]


@pytest.mark.parametrize(
    ("given", "tool", "verbosity"),
    [
        ([], "mitmdump", "termlog_verbosity"),
        (["--web"], "mitmweb", "termlog_verbosity"),
        (["--console"], "mitmproxy", "console_eventlog_verbosity"),
    ],
)
def test_each_tool_of_mitmproxys(given: list[str], tool: str, verbosity: str) -> None:
    found, rest = cli.command([*given, "--log-level", "warn"], {})
    assert found == tool
    assert f"{verbosity}=warn" in rest


def test_web_and_console_are_one_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.command(["--web", "--console"], {})
    assert ended.value.code == 2
    assert "choose one" in capsys.readouterr().err


def test_the_console_needs_a_terminal() -> None:
    # An empty pipe: Windows takes its null device for a terminal.
    done = run("--console", "--demo", input="")
    assert done.returncode == 1
    assert re.search(r"^ollama-lmstudio-proxy: error: --console .* its input is none\b.* --web$", done.stderr)
    assert done.stdout == ""


def test_the_scripts_path(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("--script-path", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    path = Path(done.stdout.removesuffix("\n"))
    assert path.is_absolute()
    assert "addons = [OllamaBridge()]" in path.read_text()
    # A frozen program in one file unpacks the script, and takes it away at the end.
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path), raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.command(["--script-path"], {})
    assert ended.value.code == 2
    assert "unpacks the script only while it runs" in capsys.readouterr().err


def test_what_is_not_known_goes_on_to_mitmproxy() -> None:
    assert (
        arguments("--flow-detail", "3", "-p", "9", "~u", "chat")[-6:]
        == ["--flow-detail", "3", "-p", "9", "~u", "chat"][-6:]
    )


def test_a_config_file_gives_options_and_flags_win(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(
        "listen: 127.0.0.1:1\nallowed_hosts: [a, b]\ndemo: true\nweb_port: 9\napi_key:\nallowed_origins: []"
    )
    more = ("--listen", "127.0.0.1:2", "--set", "web_port=10")
    assert set_options("--config", str(file), *more)[1:] == [
        "listen=127.0.0.1:2",
        "allowed_hosts=a",
        "allowed_hosts=b",
        "demo=true",
        "web_port=10",
    ]


def options_in(text: str) -> str:
    """Give the address that a configuration says, which each of these tests makes another one."""
    return next(part for part in set_options("--config", text) if part.startswith("listen="))


def test_a_ready_configuration_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"debug", "lan", "local", "record", "replay"} == set(bundled.configurations())
    assert options_in("lan") == "listen=0.0.0.0:11434"
    # A file of this name does not come before it; as a path, it is meant.
    for name in ("lan", "lan.yaml", "mine"):
        Path(name).write_text("listen: 127.0.0.1:5")
    assert options_in("lan") == "listen=0.0.0.0:11434"
    for file in ("./lan", "lan.yaml", "mine", str(tmp_path / "lan")):
        assert options_in(file) == "listen=127.0.0.1:5"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("debg", "there is no configuration 'debg': did you mean debug?"),
        ("RECORD", "there is no configuration 'RECORD': did you mean record?"),
        ("zzz", "there is no configuration 'zzz': there are debug, lan, local, record, replay; or name a file"),
        ("configs/lan.yaml", "configs/lan.yaml: there is no such file; the ready one is --config lan"),
        ("lan.yaml", "lan.yaml: there is no such file; the ready one is --config lan"),
        ("my.yaml", "my.yaml: there is no such file"),
    ],
)
def test_a_configuration_that_is_not_there(
    given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.command(["--config", given], {})
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: argument --config: {said}")


def test_config_alone_lists_the_ready_ones(capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["--config"], ["--config", "--web"], ["--config", "lan", "--config"]):
        with pytest.raises(SystemExit) as ended:
            cli.command(given, {})
        assert not ended.value.code
        said = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in said[:5]] == list(bundled.configurations())
        assert said[2] == "local   Serve to this machine only"
        assert Path(said[-1].partition("copy it from ")[2], "lan.yaml").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe has no error of its own there")
@pytest.mark.parametrize("flag", ["--config", "--version", "--script-path"])
def test_a_text_that_cannot_be_printed(flag: str) -> None:
    command = [sys.executable, "-m", "ollama_lmstudio", flag]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, ""), "as with head, which reads no further"
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        reason = os.strerror(errno.ENOSPC)
        assert done.stderr == f"ollama-lmstudio-proxy: error: the text cannot be printed: {reason}\n"
        assert done.returncode == 1


def test_what_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for given, reason in (
        (str(tmp_path), r"Is a directory|Permission denied"),
        ("x" * 5000, r"File name too long|No such file|there is no"),
        ("~nobody-has-this-name/x.yaml", r"there is no such file"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.command(["--config", given], {})
        assert ended.value.code == 2
        assert re.search(rf"error: argument --config: .*({reason})", capsys.readouterr().err)
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(SystemExit):
        cli.command(["--set", f"confdir={tmp_path}"], {})
    assert f"error: mitmproxy's own configuration {tmp_path / 'config.yaml'}: " in capsys.readouterr().err

    def no_home(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    # mitmproxy would end with a traceback.
    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(SystemExit):
        cli.command(["--demo"], {})
    assert "error: there is no home directory" in capsys.readouterr().err


def test_a_configuration_may_come_through_a_pipe(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("such pipes are POSIX'")
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("listen: 127.0.0.1:5",))
    writer.start()
    assert options_in(str(tmp_path / "pipe")) == "listen=127.0.0.1:5"
    writer.join()


@pytest.mark.parametrize("text", [None, "listen", "a: [", "- a", "\x00"])
def test_a_config_file_that_is_none(text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit) as caught:
        cli.command(["--config", str(file)], {})
    assert caught.value.code == 2
    assert "my.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--listen", "nowhere"], "--listen: 'nowhere' is not host:port"),
        (["--lmstudio-url", "ftp://x"], "--lmstudio-url"),
        (["--load_timeout_seconds", "0"], "--load-timeout-seconds: 0 is not a positive number"),
        (["--max-buffer-size", "many"], "--max-buffer-size: 'many' is not a number"),
        (["--max-buffer-size", "1.5"], "--max-buffer-size: '1.5' is not a number"),
        (["--num-ctx", "reload"], "invalid choice"),
    ],
)
def test_wrong_values_are_refused_by_name(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.command(given, {})
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("--listn", "--listen"),
        ("--listn=1", "--listen"),
        ("--liste", "--listen"),
        ("--lmstudio", "--lmstudio-url"),
        ("--lm_studio_url", "--lmstudio-url"),
        ("--apikey", "--api-key"),
        ("--loglevel", "--log-level"),
        ("--wbe", "--web"),
        ("--no-dmeo", "--no-demo"),
    ],
)
def test_a_misspelt_flag_is_told(given: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.command([given, "x"], {})
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"ollama-lmstudio-proxy: error: there is no flag {given.partition('=')[0]}; did you mean {near}?"


def mitmproxys_flags() -> set[str]:
    """Give the flags of mitmdump and mitmweb."""

    async def find() -> set[str]:
        found = set()
        tools: Any = ((DumpMaster, cmdline.mitmdump), (WebMaster, cmdline.mitmweb))
        for master, parser in tools:
            given = Options()
            master(given)
            found |= {flag for action in parser(given)._actions for flag in action.option_strings}
        return found

    return asyncio.run(find())


def test_mitmproxys_own_flags_are_not_taken_for_misspelt_ones() -> None:
    flags = mitmproxys_flags() - {"--help", "-h", "--version"}
    assert "--listen-host" in flags
    for flag in flags:
        assert arguments(flag)[-1] == flag
    # argparse takes the beginning of a flag, too.
    for flag in ("--listen-h", "--listen-p", "--allow-h"):
        assert arguments(flag, "1")[-2:] == [flag, "1"]
    assert not {flag for flag in cli._Parser({}).flags if flag in flags}, "a flag of mitmproxy's that would be hidden"


@pytest.mark.parametrize("columns", [80, 120])
def test_the_help_says_each_flag_once(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as ended:
        cli.command(["--help"], {})
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= columns
    assert re.findall(r"^(\S.*):$", text, re.MULTILINE) == list(cli.GROUPS)
    flags = re.findall(r"^  (?:-h, )?(--[\w-]+)", text, re.MULTILINE)
    named = [name for names in cli.GROUPS.values() for name in names]
    assert flags == [f"--{name.replace('_', '-')}" for name in named]
    assert {option.name for option in options.OPTIONS} < set(named)
    assert len(set(named)) == len(named)
    assert not re.search(r"--\w+_\w+", text)
    assert "Default: True" not in text


def test_mitmproxys_own_file_is_not_let_win_unseen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("listen: 0.0.0.0:11434\napi_key: change-me\nflow_detail: 3\n")
    there = ("--set", f"confdir={tmp_path}")
    for given in (("--listen", "127.0.0.1:5"), ("--set", "listen=127.0.0.1:5")):
        with pytest.raises(SystemExit) as ended:
            cli.command([*given, *there], {})
        assert ended.value.code == 2
        assert f"{tmp_path / 'config.yaml'} would win over what is given here for listen" in capsys.readouterr().err
    for fitting in (["--api-key", "change-me"], ["--max-kept-size", "5"], []):
        assert cli.command([*fitting, *there], {})[1][-2:] == list(there)


def test_the_doctor_is_a_quiet_mitmdump_that_serves_nothing() -> None:
    for given in (["--doctor"], ["--doctor", "--web"], ["--doctor", "--console"]):
        tool, found = cli.command([*given, "--api-key", "k", "-p", "9"], {})
        assert tool == "mitmdump"
        assert found[2:] == [
            *("--set", "termlog_verbosity=info", "--set", "mode", "--set", "api_key=k"),
            *("--set", "doctor=true", "--no-server", "--quiet", "-p", "9"),
        ]


def test_the_doctor_looks_at_what_mitmproxy_is_told(tmp_path: Path) -> None:
    port, other = free_port(), free_port()
    state = ("--state-dir", str(tmp_path), "--demo")
    for given in (
        ("-p", str(port), "--listen-host", "127.0.0.1"),
        ("--set", f"listen=127.0.0.1:{port}"),
        ("--listen", f"127.0.0.1:{other}", "--listen-port", str(port)),
        ("--listen", f"[::1]:{port}"),
    ):
        done = doctor(*state, *given, "--set", f"confdir={tmp_path}")
        assert (done.returncode, done.stderr) == (0, "")
        found = done.stdout
        assert f"port {port} is free" in found
        assert re.search(rf"(127\.0\.0\.1|\[::1\]):{port} is reached from this machine only", found)
        assert "it lists 5 models" in found
        # The report is everything that is written.
        assert re.fullmatch(r"(?: *(?:ok|note): [^\n]+\n)+", found)


def test_the_doctor_ends_with_status_1_for_a_problem(tmp_path: Path) -> None:
    port = free_port()
    done = doctor("--state-dir", str(tmp_path), "--lmstudio-url", f"http://127.0.0.1:{port}", "--listen", str(port))
    assert (done.returncode, done.stderr) == (1, "")
    assert "problem: lmstudio_url is this bridge's own address" in done.stdout
    done = doctor("--set", "listen=nowhere")
    assert done.returncode == 1
    assert "listen: 'nowhere' is not host:port" in done.stdout


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `--doctor` to its end."""
    return run("--doctor", *arguments)


def run(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line tool to its end."""
    command = [sys.executable, "-m", "ollama_lmstudio", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **settings)
