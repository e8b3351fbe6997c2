"""The packages, installed as the README says, in an empty folder: what it tells of them is so without a checkout."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import platformdirs
import pytest
from tests.clients.environments import PythonClient
from tests.wire.conftest import CHAT, HI, Proxy, content_of, ndjson
from tests.wire.web import Web

from ollama_lmstudio import __version__

pytestmark = pytest.mark.install

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECONDS = 300
# Far more than they have, and far less than they would have with a recording or a picture too many.
PAGE = ROOT / "addon" / "ollama_lmstudio" / "page" / "static"
WHEEL_BYTES, SDIST_BYTES = 1_000_000, 2_000_000
BUILDERS = PythonClient("", ("build==1.3.0", "hatchling==1.27.0", "twine==6.2.0", "check-wheel-contents==0.6.3"))
INSTALLERS = PythonClient("", ("uv==0.9.7", "pipx==1.8.0"))
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
# What has been downloaded once is not downloaded again, and is compiled when it is used.
CACHES = {
    "PIP_CACHE_DIR": str(platformdirs.user_cache_path("pip")),
    "UV_CACHE_DIR": str(platformdirs.user_cache_path("uv")),
    "PIP_NO_COMPILE": "1",
}
# What a program must not find: this checkout, and what a developer has set.
HIDDEN = re.compile(r"PYTHON(?!UNBUFFERED).*|VIRTUAL_ENV|(OLLAMA|LMSTUDIO|LM)_.*")


class Packages(NamedTuple):
    """The two files that are published."""

    wheel: Path
    sdist: Path


def environment(folder: Path, *paths: Path) -> dict[str, str]:
    """Give variables for a program that is started in this folder, which is also its user's home."""
    kept = {name: value for name, value in os.environ.items() if not HIDDEN.fullmatch(name)}
    path = os.pathsep.join((*map(str, paths), os.environ["PATH"]))
    return (
        kept
        | CACHES
        | {"HOME": str(folder), "USERPROFILE": str(folder), "PATH": path, "PIPX_HOME": str(folder / "pipx")}
    )


def execute(command: Sequence[str], folder: Path, *paths: Path) -> str:
    """Run a command to its end, and give what it printed; it must not fail."""
    variables = environment(folder, *paths)
    variables |= {"UV_TOOL_BIN_DIR": str(folder / "bin"), "PIPX_BIN_DIR": str(folder / "bin")}
    # A command of a block is looked up where the block would find it.
    done = subprocess.run(
        ["/usr/bin/env", *command] if os.name == "posix" else command,
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def tool(client: PythonClient, module: str) -> list[str]:
    """Give the command of a tool in an environment of its own; skip the test where it cannot be had.

    Not its program: that has the path under which the environment was made, which is another one since.
    """
    return [str(client.installed() / SCRIPTS / "python"), "-m", module]


def lines_of(language: str, number: int) -> list[list[str]]:
    """Give the lines of a block of the README, each as its steps, in the words of this system."""
    block = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)[number]
    separator = "; " if language == "powershell" else " && "
    lines = [line.partition("   #")[0].strip().split(separator) for line in block.splitlines()]
    return [[step.replace("\\", "/").replace(".venv/Scripts/", ".venv/bin/") for step in steps] for steps in lines]


def words(step: str, package: Path) -> list[str]:
    """Give the words of a step; in place of the folder stands a package, as the README says that it may."""
    found = [str(package) if word == "." else word for word in shlex.split(step)]
    return [sys.executable, *found[1:]] if found[0] == "python3" else found


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """The sdist, and the wheel that is made of it."""
    folder = tmp_path_factory.mktemp("packages")
    execute([*tool(BUILDERS, "build"), "--no-isolation", "--outdir", str(folder), str(ROOT)], folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Packages(wheel, sdist)


@pytest.fixture(scope="module")
def home(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first command of the README has been executed, but for its last step, which serves."""
    folder = tmp_path_factory.mktemp("home")
    try:
        for step in lines_of("sh", 0)[0][:-1]:
            execute(words(step, packages.wheel), folder)
    except AssertionError as e:
        if re.search("No matching distribution|Could not fetch|Connection|connection", str(e)):
            pytest.skip("the wheel's dependencies cannot be had")
        raise
    return folder


class Installed(Proxy):
    """The installed program, started in the folder of its user."""

    def __init__(self, home: Path, command: str, *arguments: str) -> None:
        super().__init__(None)
        self.folder = home
        own = ("--listen", f"127.0.0.1:{self.port}", "--state-dir", str(home / "state"))
        self.command = [*shlex.split(command), *own, *arguments]
        self.command = [str(home / ".venv" / SCRIPTS / Path(self.command[0]).name), *self.command[1:]]
        self.environment = environment(home) | {"PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def serving(home: Path) -> Iterator[Proxy]:
    """What the first command of the README serves, which the other commands are used beside."""
    with Installed(home, lines_of("sh", 0)[0][-1]) as proxy:
        proxy.wait_for_log(r"\(\d+ models\)")
        yield proxy


def own(home: Path, *arguments: str) -> str:
    """Run the installed program to its end."""
    return execute([str(home / ".venv" / SCRIPTS / "ollama-lmstudio-proxy"), *arguments], home)


def test_the_packages_are_as_a_registry_wants_them(packages: Packages) -> None:
    folder = packages.wheel.parent
    execute([*tool(BUILDERS, "twine"), "check", "--strict", *map(str, packages)], folder)
    execute([*tool(BUILDERS, "check_wheel_contents"), str(packages.wheel)], folder)
    assert packages.wheel.stat().st_size < WHEEL_BYTES
    assert packages.sdist.stat().st_size < SDIST_BYTES


def test_what_is_in_the_packages(packages: Packages) -> None:
    with zipfile.ZipFile(packages.wheel) as file:
        names = set(file.namelist())
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*") if path.is_file()}
    shipped = {name.removeprefix("ollama_lmstudio/") for name in names if "/configs/" in name}
    # Keys that mitmproxy has written there, as Git ignores them, are not.
    assert shipped == {name for name in configs if not name.startswith("configs/mitmproxy-")}
    assert {name.partition("/")[0] for name in names} == {
        "ollama_lmstudio",
        packages.wheel.name.partition("-py3")[0] + ".dist-info",
    }
    assert "ollama_lmstudio/script/ollama.py" in names
    page = {path.relative_to(ROOT / "addon").as_posix() for path in PAGE.rglob("*") if path.is_file()}
    assert page
    assert page <= names
    with tarfile.open(packages.sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "CHANGELOG.md", "LICENSE", "tests/test_install.py", "addon/ollama.py"} <= inside


def test_the_powershell_block_is_the_same() -> None:
    """There is no PowerShell here: each of its commands is that of the shell's block, which is executed."""
    shell = [[re.sub("^python3 ", "py ", step) for step in steps] for steps in lines_of("sh", 0)]
    assert lines_of("powershell", 0) == shell
    # Windows PowerShell 5 has no `&&`.
    assert "&&" not in "".join(re.findall(r"^```powershell\n(.*?)^```$", README, re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("number", [1, 2], ids=["uv", "pipx"])
def test_the_other_installers(packages: Packages, tmp_path: Path, number: int) -> None:
    install, serve = lines_of("sh", 0)[number]
    installer, *rest = words(install, packages.wheel)
    execute([*tool(INSTALLERS, installer), *rest], tmp_path, tmp_path / "bin")
    assert __version__ in execute([serve.split()[0], "--version"], tmp_path, tmp_path / "bin")


def test_the_readmes_question(serving: Proxy) -> None:
    curl, powershell = lines_of("sh", 2)[0][0], lines_of("powershell", 1)[0][0]
    for command in (curl, powershell):
        assert "http://localhost:11434/api/chat" in command
        (body,) = re.findall(r"'(\{.*\})'", command)
        with serving.client() as client:
            answer = client.post(
                "/api/chat", content=body, headers={"content-type": "application/x-www-form-urlencoded"}
            )
        text = content_of(ndjson(answer)) if command is curl else answer.json()["message"]["content"]
        assert text


def test_tags_and_an_alias(serving: Proxy) -> None:
    with serving.client() as client:
        assert f"{CHAT}:latest" in [entry["name"] for entry in client.get("/api/tags").json()["models"]]
        assert client.post("/api/copy", json={"source": CHAT, "destination": "mine"}).status_code == 200
        assert ndjson(client.post("/api/chat", json={"model": "mine", "messages": HI}))[-1]["done"]


def test_what_it_says_of_itself(home: Path) -> None:
    assert __version__ in own(home, "--version")
    assert "--script-path" in own(home, "--help")
    said = own(home, "--config")
    assert re.search(r"^local +Serve to this machine only$", said, re.MULTILINE)
    assert str(home) in said
    assert "it lists" in own(home, "--doctor", "--demo", "--listen", "127.0.0.1:0", "--state-dir", str(home / "other"))


def test_see_it_while_the_first_command_serves(home: Path, serving: Proxy) -> None:
    block = README.partition("## See it")[2].partition("```sh\n")[2].partition("```")[0]
    command, question = (line.partition("   #")[0] for line in block.splitlines())
    (address,) = re.findall(r" --listen (\S+)", command)
    assert not address.endswith(":11434")
    assert address.rpartition(":")[2] in question
    # Only the address is another one, so that what serves on this machine is not in the way.
    proxy = Installed(home, command.replace(f" --listen {address}", ""), *Web.arguments())
    with proxy, proxy.client() as client:
        assert ndjson(client.post("/api/chat", json={"model": CHAT, "messages": HI}))[-1]["done"]
        web = Web(proxy)
        flow = web.flow(lambda flow: flow["request"]["path"] == "/v1/chat/completions" and flow["comment"])
        assert CHAT in flow["comment"]
        for path in ("", "static/main.js", "static/vendor/lit-html/lit-html.js", f"exchanges/{flow['id']}"):
            assert web.http.get(f"/ollama/{path}").status_code == 200
        web.http.close()


def test_the_script_for_mitmproxys_own_tools(home: Path) -> None:
    (line,) = re.findall(r'^(mitmdump -s "\$\(.*?\)") ', README, re.MULTILINE)
    (tell,) = re.findall(r"\$\(ollama-lmstudio-proxy (.*?)\)", line)
    script = own(home, tell).removesuffix("\n")
    assert Path(script).is_relative_to(home)
    proxy = Proxy(None, options={"demo": "true"}, script=Path(script), state_dir=home / "state")
    proxy.folder, proxy.environment = home, environment(home) | {"PYTHONUNBUFFERED": "1"}
    proxy.command = [str(home / ".venv" / SCRIPTS / "mitmdump"), *proxy.command[1:]]
    with proxy, proxy.client() as client:
        assert ndjson(client.post("/api/chat", json={"model": CHAT, "messages": HI}))[-1]["done"]
