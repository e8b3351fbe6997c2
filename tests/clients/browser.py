"""A person at mitmweb's page, in a real browser: looks, chooses, edits, lets go on.

run.py browser.py URL EXECUTABLE
"""

from __future__ import annotations

import re
import sys
from typing import Any

from playwright.sync_api import sync_playwright

# As root, without a screen, and without a word to anybody but the page.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 15_000
# As much of a cell's text as is seen.
SEEN = """cell => {
    const [text] = cell.childNodes, range = document.createRange();
    let end = text ? text.length : 0;
    while (end) {
        range.setStart(text, 0);
        range.setEnd(text, end);
        if (range.getBoundingClientRect().right <= cell.getBoundingClientRect().right) break;
        end -= 1;
    }
    return text ? text.data.slice(0, end) : "";
}"""

playwright = sync_playwright().start()
browser = playwright.chromium.launch(executable_path=sys.argv[3], headless=True, args=list(ARGUMENTS))
page = browser.new_page(viewport={"width": 1400, "height": 980}, device_scale_factor=2, color_scheme="light")
page.set_default_timeout(WAIT_MS)
page.context.grant_permissions(["clipboard-read", "clipboard-write"])
problems: list[str] = []
page.on("pageerror", lambda error: problems.append(str(error)))


def visit(url: str) -> None:
    """Open the page."""
    page.goto(url)
    page.wait_for_selector(".flow-table")


def choose(text: str) -> None:
    """Click the newest exchange in the list whose line has this text."""
    page.locator(".flow-table tr", has_text=text).last.click()
    page.wait_for_selector(".contentview pre, .contentview .cm-editor")


def listed() -> list[str]:
    """Give the lines of the list."""
    return _lines(page.locator(".flow-table tbody tr").all_inner_texts())


def stopped() -> list[str]:
    """Give the lines that show that an exchange waits for a person."""
    page.wait_for_selector(".flow-table tr.intercepted")
    return _lines(page.locator(".flow-table tr.intercepted").all_inner_texts())


def seen(column: str) -> list[str]:
    """Give as much of the texts in a column of the list as is seen."""
    texts: list[str] = page.locator(f".flow-table tbody td.col-{column}").evaluate_all(f"cells => cells.map({SEEN})")
    return texts


def _lines(rows: list[str]) -> list[str]:
    return [" ".join(row.split()) for row in rows if row.strip()]


def tab(name: str) -> None:
    """Click one of the tabs of an exchange, or of the page."""
    page.locator("nav a", has_text=name).first.click()


def view(name: str) -> None:
    """Choose a view by hand."""
    page.locator("a,button", has_text="View:").first.click()
    page.locator(".dropdown-menu a, .dropdown-menu li", has_text=name.lower()).first.click()
    page.wait_for_selector(f".contentview h5:text-is('{name}')")


def views() -> list[str]:
    """Give the entries of the menu of views, in their order."""
    menu = page.locator("a,button", has_text="View:").first
    menu.click()
    entries = page.locator(".dropdown-menu a, .dropdown-menu li").all_inner_texts()
    menu.click()
    return list(dict.fromkeys(entry.strip() for entry in entries))


def shown(text: str) -> dict[str, Any]:
    """Wait until the exchange's body shows a text; give the view's name and what it shows."""
    body = page.locator(".contentview").first
    body.get_by_text(text).first.wait_for()
    return {"view": body.locator("h5").inner_text(), "text": body.inner_text()}


def copied() -> str:
    """Copy what the exchange's body shows, as a person does: with the page's button, else all of it by hand."""
    body = page.locator(".contentview").first
    body.locator("pre").wait_for()
    page.evaluate("navigator.clipboard.writeText('')")
    if body.get_by_role("button", name="Copy").count():
        body.get_by_role("button", name="Copy").click()
        body.get_by_role("button", name="Copied!").wait_for()
    else:
        body.locator("pre").evaluate("all => getSelection().selectAllChildren(all)")
        page.keyboard.press("Control+C")
    page.wait_for_function("navigator.clipboard.readText()")
    return str(page.evaluate("navigator.clipboard.readText()"))


def layout() -> dict[str, Any]:
    """Give how the exchange's body is laid out: whether it fits into its width, and each line's height and colours."""
    return dict(
        page.locator(".contentview pre").first.evaluate(
            """pre => ({
                fits: pre.scrollWidth <= pre.clientWidth,
                lines: [...pre.querySelectorAll(':scope > div')].map(line => ({
                    text: line.innerText,
                    height: line.offsetHeight,
                    colors: [...line.querySelectorAll('span')].map(part => getComputedStyle(part).color),
                    bold: [...line.querySelectorAll('span')].some(part => getComputedStyle(part).fontWeight > 400),
                })),
            })"""
        )
    )


def resize(width: int, height: int = 980) -> None:
    """Make the window another size."""
    page.set_viewport_size({"width": width, "height": height})


def fill(field: str, text: str) -> None:
    """Write into one of the fields of the list: Search, Highlight, Intercept."""
    tab("Flow List")
    found = page.get_by_placeholder(field)
    found.fill(text)
    found.press("Enter")
    page.keyboard.press("Escape")


def edit(text: str) -> str:
    """Replace the body of the exchange that is shown; give what there was to edit."""
    page.locator("button", has_text="Edit").first.click()
    lines = page.locator(".CodeMirror-line, .cm-line")
    # At first, mitmweb 11 has the view in there, and then the body.
    lines.first.filter(has_not_text=re.compile(r'^\{"lines"')).wait_for()
    before = "\n".join(lines.all_inner_texts())
    # Not by a click: other things may lie over the first line, and move, until the page has settled.
    page.locator(".CodeMirror textarea, .cm-content").first.focus()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(text)
    page.locator("button", has_text="Done").click()
    page.wait_for_selector("button:has-text('Edit')")
    return before


def press(button: str) -> None:
    """Press one of the buttons of the tool bar: Resume, Abort, Replay."""
    page.locator("nav a", has_text=re.compile("^Flow$")).click()
    page.locator(".flow-menu button", has_text=button).click()


def command(text: str) -> str:
    """Run a command in the command bar; give what it shows."""
    bar = page.get_by_placeholder("Enter command")
    if not bar.count():
        tab("Options")
        page.get_by_text("Display Command Bar").click()
    bar.fill(text)
    bar.press("Enter")
    results = page.locator(".command-result > div", has_text=text)
    results.last.wait_for()
    return str(results.last.inner_text())


def picture(path: str) -> None:
    """Take a picture of the page, once its fleeting messages are gone."""
    page.wait_for_timeout(2000)
    page.screenshot(path=path)


def errors() -> list[str]:
    """Give the errors of the page's own code."""
    return problems
