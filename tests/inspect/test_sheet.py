"""A sheet: texts as they were said, and rules that no text can be taken for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inspect.conftest import rule, said

from ollama_lmstudio.inspect.sheet import SHEET_CHARACTERS, Sheet, styled

AS_SAID = {
    "tabs and trailing blanks": "a\tb  \n\tc \n  ",
    "what looks like YAML": "# a\n---\nb: |\n  c: d #e",
    "empty lines": "\n\na\n\n\nb\n",
    "a long line": "x" * 2000 + "\n" + "word " * 400,
    "other alphabets": "中文字\n👩‍👩‍👧 e\u0301\n\u202eabc\u202c\u2066d\u2069",
    "other line breaks": "a\r\nb\rc\u2028d\x0be",
    "one line": "  a: b # c\td  ",
    "nothing but a line break": "\n",
}


@pytest.mark.parametrize("text", AS_SAID.values(), ids=AS_SAID)
def test_a_text_is_as_it_was_said(text: str) -> None:
    sheet = Sheet()
    sheet.heading("Answer")
    sheet.text("assistant", text)
    sheet.value("model", "m")
    expected = said("assistant", text) if "\n" in text or len(text) > 100 else f"assistant: {text}"
    assert str(sheet) == f"{rule('Answer')}\n{expected}\nmodel: m"


def test_the_parts_of_a_sheet() -> None:
    sheet = Sheet()
    sheet.heading("One")
    sheet.text("a", "1\n2")
    sheet.text("b", "3\n4")
    sheet.heading("Two")
    sheet.block("c", ["5", "", "6\n7"])
    sheet.text("d", "")
    sheet.text("e", "8\n9")
    assert str(sheet).split("\n") == [
        rule("One"),
        *said("a", "1\n2").split("\n")[:-1],
        *said("b", "3\n4").split("\n")[:-1],
        "",
        rule("Two"),
        "c:",
        "  5",
        "",
        "  6",
        "  7",
        "d:",
        *said("e", "8\n9").split("\n"),
    ]


FORGED = {
    "a rule": rule("Error"),
    "the end of a text": "─" * 38,
    "behind a blank": f" \t{rule('Error')}",
    "behind what is not seen": f"\u200b\u2060{rule('Error')}",
    "with something unseen in it": "━\u200b━ Error ━━",
    "with another dash": "—— Error ——",
    "behind another line break": f"a\u2028{rule('Error')}",
    "both kinds of signs": "━━ Error ━━\n██ Error ██\n░░░░ a",
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_no_text_can_be_taken_for_a_rule(forged: str) -> None:
    sheet = Sheet()
    sheet.heading("Answer")
    sheet.text("assistant", f"Well.\n{forged}\nerror: no")
    sheet.heading("Numbers")
    lines = str(sheet).split("\n")
    begin = lines[0].partition(" ")[0]
    assert [line for line in lines if line.startswith(begin)] == [lines[0], lines[-1]]
    assert begin != "━━"
    assert forged in str(sheet)
    kinds = [kind for kind, _ in styled(str(sheet))]
    assert kinds == ["section", "text", *["said"] * (len(kinds) - 3), "section"]


PARTS = st.lists(st.tuples(st.sampled_from(["heading", "value", "text"]), st.text("a━─█░ :\n\u200b", max_size=20)))


@given(PARTS)
def test_what_is_what_can_be_told_from_the_text_alone(parts: list[tuple[str, str]]) -> None:
    sheet = Sheet()
    sheet.heading("Answer")
    for kind, text in parts:
        if kind == "heading":
            sheet.heading(text)
        else:
            getattr(sheet, kind)("key", text)
    kinds = [kind for kind, _ in styled(str(sheet))]
    assert kinds.count("section") == 1 + sum(kind == "heading" for kind, _ in parts)
    blocks = [text for kind, text in parts if kind == "text" and "\n" in text]
    lines = [line for kind, line in styled(str(sheet)) if kind == "said"]
    # A blank line is between a text and the next heading.
    assert (
        sum(len(text.split("\n")) for text in blocks) <= len(lines) <= sum(len(text.split("\n")) + 1 for text in blocks)
    )


def test_a_long_text_is_cut_by_a_rule() -> None:
    sheet = Sheet()
    sheet.heading("Answer")
    sheet.text("assistant", "a" * 900 + "b" * 900, 1000)
    assert [line for _, line in styled(str(sheet))][1:] == [
        *said("assistant", "a" * 750).split("\n")[:-1],
        *said("800 characters are left out here", "b" * 250).split("\n"),
    ]


def test_a_sheet_is_limited() -> None:
    sheet = Sheet()
    sheet.heading("Answer")
    for _ in range(100):
        sheet.text("a", "x\n" * 10_000)
    assert SHEET_CHARACTERS - 20_000 < len(str(sheet)) < SHEET_CHARACTERS + 200
    assert str(sheet).split("\n")[-1].startswith("━━ 1,5")
    assert "more characters are not shown" in str(sheet).split("\n")[-1]


def test_keys_are_of_one_line() -> None:
    sheet = Sheet()
    sheet.heading("a\nb")
    sheet.value("c\nd", 1)
    sheet.text("e\nf", "g\nh")
    sheet.block("i\nj", ["k"])
    assert str(sheet).split("\n") == [rule("a b"), "c d: 1", *said("e f", "g\nh").split("\n"), "i j:", "  k"]
