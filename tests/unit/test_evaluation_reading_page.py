"""The sheet as a page: whole in itself, labelled for every reader, and safe with hostile texts."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pamdp.evaluation.reading_sheet import QUESTIONS
from pamdp.types import Dialogue, Persona, Turn
from tests.tools.reading import make_dialogues, make_replies, make_sheet


class Page(HTMLParser):
    """Elements with their attributes, their text, and what they are inside of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[dict[str, Any]] = []
        self.all: list[dict[str, Any]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = {"tag": tag, "text": "", "inside": [e["tag"] for e in self.open], "children": [], **dict(attrs)}
        if self.open:
            self.open[-1]["children"].append(element)
        self.all.append(element)
        if tag not in ("meta", "input", "br"):
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()["tag"] == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def find(self, tag: str) -> list[dict[str, Any]]:
        return [element for element in self.all if element["tag"] == tag]


HOSTILE = '<script>alert("x")</script> {{ 7 * 7 }} & "quotes" </blockquote>'


@pytest.fixture
def page(tmp_path: Path) -> Page:
    dialogues = [
        Dialogue("d", "u", Persona(HOSTILE), (Turn(HOSTILE, "ok"), Turn("And now?", "ok"))), *make_dialogues(users=2)
    ]  # fmt: skip
    replies = {m: dict(r) for m, r in make_replies(dialogues).items()}
    replies["BC"]["d", 0] = HOSTILE
    replies["BC"]["d", 1] = replies["PAMDP"]["d", 1] = "twice"
    replies["Vanilla"]["talk-1", 0] = ""
    return Page((make_sheet(tmp_path, dialogues, replies).folder / "sheet.html").read_text("utf-8"))


def test_the_page_needs_nothing_from_outside(page: Page) -> None:
    assert not page.open, "every element is closed"
    assert not [e for e in page.all if e["tag"] in ("link", "img", "iframe", "object") or "src" in e or "href" in e]
    (policy,) = [e["content"] for e in page.find("meta") if e.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    style, script = page.find("style")[0]["text"], page.find("script")[0]["text"]
    assert "@import" not in style and "url(" not in style and "//" not in re.sub(r"//.*", "", script)
    assert "prefers-color-scheme: dark" in style and "max-width: 480px" in style
    assert "localStorage" in script and not re.findall(r"fetch|XMLHttp|eval|innerHTML", script)


def test_every_control_of_the_page_has_a_label(page: Page) -> None:
    assert page.find("html")[0]["lang"] == "en"
    buttons = page.find("button")
    assert all(b["type"] == "button" and b["text"].strip() for b in buttons)
    answers = [b for b in buttons if "fieldset" in b["inside"]]
    assert all(b["aria-pressed"] == "false" and b["data-key"] in "012" for b in answers)
    fieldsets = page.find("fieldset")
    assert all(f["children"][0]["tag"] == "legend" and f["children"][0]["text"].strip() for f in fieldsets)
    assert all("label" in e["inside"] for e in page.find("input"))
    ids = [e["id"] for e in page.all if "id" in e]
    assert len(ids) == len(set(ids))
    assert {e["aria-describedby"] for e in fieldsets if "data-letter" in e} <= set(ids)
    assert {e["aria-labelledby"] for e in page.find("section")} <= set(ids)


def test_the_page_asks_everything_and_shows_texts_as_they_are(page: Page) -> None:
    sections, letters = page.find("section"), Counter[int]()
    for section in sections:
        fieldsets = [e for e in section["children"] if e["tag"] == "fieldset"]
        articles = [e for e in section["children"] if e["tag"] == "article"]
        letters[len(articles)] += 1
        assert len(fieldsets) == len(articles) * (len(articles) - 1) // 2
        for article in articles:
            names = [e["data-name"] for e in article["children"] if e["tag"] == "fieldset"]
            assert names == list(QUESTIONS)
        assert all([b["data-key"] for b in e["children"][1:]] == ["1", "2", "0"] for e in fieldsets)
    assert letters == {3: 3, 2: 1}
    quotes = [e["text"] for e in page.find("blockquote")]
    assert HOSTILE in quotes and quotes.count("twice") == 1 and "(no words)" in quotes
    assert len(page.find("script")) == 1 and any(HOSTILE in section["text"] for section in sections)
