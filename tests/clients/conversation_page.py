"""A person at the conversation page, in the browser of browser.py: finds things by what they are called.

run.py conversation_page.py URL EXECUTABLE [AXE]
"""

from __future__ import annotations

import re
import runpy
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Error, Locator

WAIT_SECONDS = 15

browser = runpy.run_path(str(Path(__file__).with_name("browser.py")))
page = browser["page"]
requests: list[str] = []
complaints: list[str] = browser["problems"]
page.context.on("request", lambda request: requests.append(request.url))


def complain(said: Any) -> None:
    """Keep what the browser says of the page that is no mere note."""
    if said.type in ("error", "warning"):
        complaints.append(f"{said.text} {said.location}")


def refuse(dialog: Any) -> None:
    """Keep that a script has opened a dialog."""
    complaints.append(f"dialog: {dialog.message}")
    dialog.dismiss()


page.context.on("dialog", refuse)
page.on("console", complain)
page.on("popup", lambda other: complaints.append(f"popup: {other.url}"))


def visit(url: str) -> None:
    """Open the page anew, and wait until it is told what is new."""
    page.goto("about:blank")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1400, "height": 980})
    page.goto(url)
    connected()


def leave() -> None:
    """Close the page."""
    page.goto("about:blank")


def connected() -> None:
    """Wait until the page is told what is new."""
    page.get_by_role("status").filter(has_text="live").wait_for()


def status(text: str) -> None:
    """Wait until the page says this of its connection."""
    page.get_by_role("status").filter(has_text=text).wait_for()


def screen(width: int, height: int = 980, scheme: str = "light") -> None:
    """Have a window of another size, or another setting of the system."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": height})


def _lines() -> Locator:
    return page.get_by_role("listbox").get_by_role("option")


def _line(text: str) -> Locator:
    return _lines().filter(has_text=text).first


def lines(count: int = -1) -> list[str]:
    """Give the lines of the list from its top, once it has so many, of exchanges that have all ended."""
    if count >= 0:
        # The page is told of an exchange when it comes, and what became of it a moment after its end.
        wait_for(
            """async count => {
                const { state } = await import('/ollama/static/store.js');
                const hasEnded = [...state.rows.values()].every(row => !row.isRunning);
                return hasEnded && document.querySelectorAll('[role=option]').length === count;
            }""",
            count,
        )
    found = _lines().evaluate_all(
        "all => all.map(one => [one.ariaPosInSet ?? one.getAttribute('aria-posinset'), one.innerText])"
    )
    return [" ".join(text.split()) for _, text in sorted(found, key=lambda pair: int(pair[0]))]


def line(text: str) -> dict[str, Any]:
    """Wait for a line that has a text; give what is seen of it."""
    found = _line(text)
    found.wait_for()
    return dict(
        found.evaluate(
            """line => ({
                text: line.innerText, selected: line.ariaSelected, back: getComputedStyle(line).backgroundColor,
                bar: line.querySelector('svg').getAttribute('aria-label'),
                parts: [...line.querySelectorAll('svg rect')].map(part => ({
                    name: part.getAttribute('class'), color: getComputedStyle(part).fill,
                    begin: Number(part.getAttribute('x')), width: Number(part.getAttribute('width')),
                })),
            })"""
        )
    )


def choose(text: str) -> str:
    """Click the line that has a text; wait for what it holds, and give that."""
    _line(text).click()
    page.get_by_role("main").get_by_role("heading", level=2).wait_for()
    return main()


def unfold(text: str) -> str:
    """Click what a line has for the others of its conversation; give what that said."""
    button = _line(text).get_by_title("The exchanges of this conversation")
    said = str(button.inner_text())
    button.click()
    return said


def main() -> str:
    """Give what is shown beside the list."""
    return str(page.get_by_role("main").inner_text())


def shown(text: str) -> str:
    """Wait until a text is shown beside the list; give all that is shown there."""
    page.get_by_role("main").get_by_text(text).first.wait_for()
    return main()


def gone(text: str) -> str:
    """Wait until a text is not shown any more beside the list; give all that is shown there."""
    page.get_by_role("main").get_by_text(text).first.wait_for(state="hidden")
    return main()


def tabs() -> list[str]:
    """Give the names of the tabs."""
    return list(page.get_by_role("tab").all_inner_texts())


def tab(name: str) -> None:
    """Click a tab."""
    page.get_by_role("tab", name=name, exact=True).click()


def chosen_tab() -> list[str]:
    """Give the tabs that are marked as chosen."""
    return list(page.locator("[role=tab][aria-selected=true]").all_inner_texts())


def press(*keys: str) -> None:
    """Press keys, one after the other."""
    for key in keys:
        page.keyboard.press(key)


def focus(role: str, name: str = "") -> None:
    """Put the focus on something."""
    page.get_by_role(role, name=name or None).first.focus()


def click(role: str, name: str, place: int = 0) -> None:
    """Click what has this role and this name."""
    page.get_by_role(role, name=name).nth(place).click()


def reveal(text: str) -> None:
    """Click a text beside the list: the head of what is folded."""
    page.get_by_role("main").locator("summary").filter(has_text=text).first.click()


def folded(text: str) -> bool:
    """Tell whether a text is there and not seen."""
    found = page.get_by_role("main").get_by_text(text).first
    return found.count() > 0 and not found.is_visible()


def _field(label: str) -> Locator:
    # What a field of choices is called goes on with its choices.
    return page.get_by_label(re.compile(rf"^\s*{re.escape(label)}")).first


def write(label: str, text: str) -> None:
    """Write into a field."""
    _field(label).fill(text)


def value(label: str) -> str:
    """Give what a field holds."""
    return str(_field(label).input_value())


def select(label: str, option: str) -> None:
    """Choose one of the options of a field."""
    _field(label).select_option(option)


def options(label: str) -> list[str]:
    """Give the options of a field."""
    return list(_field(label).locator("option").all_inner_texts())


def check(label: str) -> None:
    """Tick a box, or no longer."""
    _field(label).click()


def clipboard() -> str:
    """Give what is on the clipboard, once there is something; empty it."""
    wait_for("navigator.clipboard.readText()")
    text = str(page.evaluate("navigator.clipboard.readText()"))
    page.evaluate("navigator.clipboard.writeText('')")
    return text


def hover(x: float, y: float) -> None:
    """Point at a place of the plot, as shares of its width and height."""
    box = page.locator("figure svg").first.bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])


def point(text: str) -> str:
    """Wait until the plot tells this of what the pointer is on; give all that it tells."""
    told = page.get_by_role("main").locator("[aria-live]")
    told.filter(has_text=text).first.wait_for()
    return str(told.first.inner_text())


def evaluate(code: str, argument: Any = None) -> Any:
    """Look at the page by a program."""
    return page.evaluate(code, argument)


def wait_for(code: str, argument: Any = None) -> None:
    """Wait until a program finds that something is so; one that fails may find it later."""
    until = time.monotonic() + WAIT_SECONDS
    why = ""
    # Not by Playwright's wait_for_function: it evaluates the program by the page's means, which its policy forbids.
    while True:
        try:
            if page.evaluate(code, argument):
                return
        except Error as error:
            why = str(error)
        assert time.monotonic() < until, f"never so: {code}, {argument} {why}"
        page.wait_for_timeout(10)


def go(flow_id: str) -> None:
    """Open an exchange by its address, and wait for it."""
    page.evaluate("id => { location.hash = id }", flow_id)
    wait_for("id => document.querySelector(`main a[href*='${id}']`)", flow_id)
    wait_for("document.querySelector('[role=tabpanel]').innerText !== 'Loading'")


def axe() -> list[str]:
    """Give what axe-core finds wrong on the page."""
    page.evaluate(Path(sys.argv[4]).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{rule['id']} ({rule['impact']}): {node['target'][0]}: {node['html'][:150]}"
        for rule in found["violations"]
        for node in rule["nodes"][:3]
    ]


def busy(seconds: float) -> float:
    """Give the share of the time for which the page's main thread is busy, over so many seconds."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def measured() -> tuple[float, float]:
        found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return found["TaskDuration"], found["Timestamp"]

    before = measured()
    page.wait_for_timeout(seconds * 1000)
    after = measured()
    session.detach()
    return (after[0] - before[0]) / (after[1] - before[1])


def asked() -> list[str]:
    """Give the addresses that were asked for since the last time."""
    found = list(requests)
    requests.clear()
    return found


def picture(path: str) -> None:
    """Take a picture of the page."""
    page.screenshot(path=path)


def errors() -> list[str]:
    """Give what the browser complained of since the last time."""
    found = list(complaints)
    complaints.clear()
    return found
