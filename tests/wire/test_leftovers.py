"""What the addon changes in mitmproxy is there once, however often it is loaded, and gone when it is."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from tests.wire.conftest import StartProxy, free_port
from tests.wire.test_startup import chat, copy_of_addon, touch

from ollama_lmstudio.sim import Sim

# A script that writes into a file what there is of the addon in mitmproxy and Python, again and again.
PROBE = """
import asyncio, contextlib, gc, json, logging, os, threading
from mitmproxy import contentviews, ctx

def found():
    gc.unfreeze()
    gc.collect()
    app, registry = getattr(ctx.master, "app", None), getattr(contentviews, "registry", contentviews)
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    highlight = None
    with contextlib.suppress(ImportError):
        from mitmproxy_rs.syntax_highlight import highlight
    return {{
        "filters": sorted(
            name
            for name, logger in logging.root.manager.loggerDict.items()
            for _ in getattr(logger, "filters", ())
            if name.startswith("mitmproxy")
        ),
        "match": "match" in vars(ctx.master.addons.get("dumper") or contextlib),
        "menu": "available_views" in vars(registry),
        "views": sorted(getattr(view, "name", view).lower() for view in getattr(registry, "views", registry)),
        "highlight": hasattr(highlight, "original") + hasattr(getattr(highlight, "original", None), "original"),
        "log": type(ctx.master.addons.get("termlog").logger.file).__name__,
        "page": [transform.__name__ for transform in app.transforms] if app else [],
        "threads": sorted(thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")),
        "tasks": sorted(
            made.__qualname__ for made in coroutines if "ollama_lmstudio" in made.cr_code.co_filename
        ),
        "objects": sorted(
            name
            for item in gc.get_objects()
            if (name := type(item).__name__) in ("ConsoleList", "Exchange", "OllamaBridge", "Views")
            and type(item).__module__.startswith("ollama_lmstudio")
        ),
    }}

async def write():
    number = 0
    while True:
        number += 1
        with open({file!r} + ".new", "w") as out:
            json.dump(found() | {{"number": number}}, out)
        # Windows refuses it while the test reads the file.
        with contextlib.suppress(PermissionError):
            os.replace({file!r} + ".new", {file!r})
        await asyncio.sleep(0.3)
        if os.path.exists({file!r} + ".end") and len(ctx.options.scripts) > 1:
            ctx.options.update(scripts=ctx.options.scripts[1:])

class Probe:
    def running(self):
        self.task = asyncio.create_task(write())

addons = [Probe()]
"""


@pytest.mark.parametrize("tool", ["mitmdump", "mitmweb"])
def test_loaded_three_times_it_is_there_once(sim: Sim, start_proxy: StartProxy, tmp_path: Path, tool: str) -> None:
    script, probe, file = copy_of_addon(tmp_path), tmp_path / "probe.py", tmp_path / "found.json"
    probe.write_text(PROBE.format(file=str(file)))
    web = {"web_port": str(free_port())} if tool == "mitmweb" else {}
    arguments = ["--no-web-open-browser"] if web else []
    proxy = start_proxy(sim.url, *arguments, "-s", str(probe), script=script, options=web, tool=tool)

    def found() -> dict[str, object]:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            return {**json.loads(file.read_text())}
        return {}

    def at_rest() -> dict[str, object]:
        """Give what there is when nothing is under way, and nothing of the time before."""
        chat(proxy)
        seen = found().get("number", 0)
        proxy.wait_for(
            lambda: (now := found()).get("number", 0) > seen + 1 and not {"Watch._look"} & {*now["tasks"]},  # type: ignore[misc, operator]
            10,
        )
        return {name: value for name, value in found().items() if name != "number"}

    first = at_rest()
    assert "OllamaBridge" in first["objects"]  # type: ignore[operator]
    assert "Exchange" not in first["objects"]  # type: ignore[operator]
    for loaded in (1, 2):
        touch(script)
        proxy.wait_for(lambda loaded=loaded: proxy.log.count("serves Ollama's API") > loaded, 20)  # type: ignore[misc]
        assert at_rest() == first
    Path(f"{file}.end").touch()
    proxy.wait_for(lambda: not found()["filters"], 10)
    left = found()
    assert (left["match"], left["menu"], left["highlight"]) == (False, False, 0)
    assert left["log"] == "TextIOWrapper"
    assert "WithStyle" not in left["page"]  # type: ignore[operator]
    assert not {"ollama", "lm studio"} & {*left["views"]}  # type: ignore[misc]
