"""The page as its users meet it: in a browser, by mouse, by keyboard alone, and on a phone."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from pamdp.engines.batch import Batch
from pamdp.serve.keys import Key, Keys
from tests.browser.conftest import Start
from tests.tools.serving import Running

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=60_000)
Open = Callable[..., Any]
CANARY = '<img src="/x" onerror="document.title=1"><script>document.title=2</script>'
LUMINANCE = """
() => {
  const rgb = text => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = c => { const l = c.slice(0, 3).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * l[0] + .7152 * l[1] + .0722 * l[2]; };
  const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.checkVisibility() || e.closest(".unseen, script, noscript")) continue;
    const style = getComputedStyle(e), colour = e instanceof SVGElement ? style.fill : style.color;
    let under = ground(e);
    if (e.matches("text.on")) under = rgb(getComputedStyle(e.previousElementSibling).fill);
    const [a, b] = [light(rgb(colour)), light(under)].sort((x, y) => y - x);
    found.push([(a + .05) / (b + .05), walk.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
}
"""


def talk(page: Any, *texts: str) -> None:
    """Say something and wait for the reply; again for each text."""
    expect(page.locator("#model option").first).to_be_attached()
    for text in texts:
        done = page.locator(".reply .text:not(.writing)").count()
        page.get_by_label("Your message", exact=True).last.fill(text)
        page.keyboard.press("Enter")
        expect(page.locator(".reply .text:not(.writing)")).to_have_count(done + 1)
    expect(page.locator("#send")).to_be_visible()


def test_a_reply_streams_in_and_is_what_the_server_wrote(start: Start, open_page: Open) -> None:
    running = start(Keys(), "max_tokens=64")
    page = open_page(running.url)
    page.evaluate("""() => { window.seen = new Set();
      new MutationObserver(() => document.querySelectorAll('.text').forEach(e => seen.add(e.textContent)))
        .observe(document.getElementById('log'), {subtree: true, childList: true, characterData: true}); }""")
    talk(page, "hello there")
    [reply] = running.store.replies("local:me")  # type: ignore[attr-defined]
    assert page.locator(".reply .text").inner_text().split() == reply.text.split()
    assert page.evaluate("seen.size") > 3, "it did not come in pieces"
    talk(page, "and again")
    last = running.store.replies("local:me")[-1]  # type: ignore[attr-defined]
    assert [m.content for m in last.history] == ["hello there", reply.text.strip(), "and again"]
    expect(page.locator("#values svg")).to_be_visible()
    expect(page.locator("#path circle")).to_have_count(2)


def test_stop_ends_a_reply_and_frees_its_place(start: Start, open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Batch.turn
    with monkeypatch.context() as slow:  # as slow as a model that somebody would stop
        slow.setattr(Batch, "turn", lambda batch: (time.sleep(0.1), turn(batch))[1])
        stop_one(start(), open_page)


def stop_one(running: Running, open_page: Open) -> None:
    page = open_page(running.url)
    page.route("**/v1/chat/completions", lambda route: route.continue_(
        post_data=json.dumps({**json.loads(route.request.post_data), "max_tokens": 512})
    ))  # fmt: skip
    expect(page.locator("#model option").first).to_be_attached()
    page.locator("#say").fill("tell me everything")
    page.keyboard.press("Enter")
    expect(page.locator(".reply .text")).not_to_be_empty()
    page.locator("#stop").click()
    expect(page.get_by_text("Stopped. The server keeps nothing of it.")).to_be_visible()
    expect(page.locator(".judged")).to_have_count(0)
    running.rests()
    assert not running.store.users()  # type: ignore[attr-defined]
    page.unroute("**/v1/chat/completions")
    page.locator("#say").fill("go on")
    page.keyboard.press("Enter")
    expect(page.locator(".judged")).to_have_count(1)


def test_what_is_said_of_replies_reaches_the_server(start: Start, open_page: Open) -> None:
    running = start()
    page = open_page(running.url)
    expect(page.locator("#model option").first).to_be_attached()
    page.get_by_label("Side by side").check()
    page.locator("#say").fill("hello there")
    page.keyboard.press("Enter")
    better = page.get_by_role("group", name="Which one is better?")
    better.get_by_role("button", name="Plain model").click()
    expect(better.get_by_text("Noted")).to_be_visible()
    own = page.get_by_role("article", name="Reply, pamdp")
    own.get_by_role("button", name="Poor reply").click()
    expect(own.get_by_role("button", name="Poor reply")).to_have_attribute("aria-pressed", "true")
    own.get_by_role("button", name="Correct it").click()
    own.get_by_label("What it should have said").fill("Good evening.")
    own.get_by_role("button", name="Send the correction").click()
    expect(own.get_by_label("What it should have said")).to_be_hidden()
    store = running.store  # type: ignore[attr-defined]
    models = {reply.id: reply.model for reply in store.replies("local:me")}
    said = [(f.kind, models[f.reply], models.get(f.over), f.thumb, f.text) for f in store.feedback("local:me")]
    assert said == [
        ("preferred", "vanilla", "pamdp", None, None), ("thumb", "pamdp", None, -1, None),
        ("correction", "pamdp", None, None, "Good evening."),
    ]  # fmt: skip


def test_a_profile_is_seen_mended_and_erased(start: Start, open_page: Open) -> None:
    running = start()
    page = open_page(running.url)
    talk(page, "hello there")
    page.get_by_role("button", name="Infer anew").click()
    row = page.locator("#statements li")
    expect(row).to_contain_text("confidence 0.50")
    row.get_by_text("rests on 1 message").click()
    expect(row.locator("blockquote")).to_have_text("hello there")
    expect(page.locator("#profile-note")).to_contain_text("too little")
    expect(page.locator("#profile-panel")).to_contain_text("judging only, never the replies")
    row.get_by_role("button", name="Edit").click()
    page.get_by_label("The statement").fill("says good evening")
    page.keyboard.press("Enter")
    expect(row).to_contain_text("written by hand")
    page.get_by_label("A statement about you").fill("works nights")
    page.keyboard.press("Enter")
    expect(row).to_have_count(2)
    page.get_by_role("button", name="Take out: works nights").click()
    expect(row).to_have_count(1)
    page.get_by_role("button", name="Erase everything").first.click()
    page.get_by_role("button", name="Keep it").click()
    assert running.store.knows("local:me")  # type: ignore[attr-defined]
    page.get_by_role("button", name="Erase everything").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Erase everything").click()
    expect(page.locator("#profile-note")).to_contain_text("Everything is erased.")
    assert not running.store.users()  # type: ignore[attr-defined]
    expect(page.locator(".reply")).to_have_count(0)


def test_texts_stay_texts(start: Start, open_page: Open, findings: list[str]) -> None:
    findings[:] = [f"[1] likes {CANARY}"]
    running = start()
    page = open_page(running.url)
    piece = {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": CANARY}}]}
    page.get_by_label("You are").fill("<b>me</b>")
    page.get_by_label("You are").press("Tab")
    talk(page, CANARY)
    page.get_by_role("button", name="Infer anew").click()
    expect(page.locator("#statements li .text")).to_have_text(f"likes {CANARY}")
    page.locator("#statements summary").click()
    page.route("**/v1/chat/completions", lambda route: route.fulfill(
        content_type="text/event-stream", body=f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n"
    ))  # fmt: skip
    page.route("**/v1/inspect/replies", lambda route: route.fulfill(json={"data": [{"text": CANARY}]}))
    talk(page, "again")
    expect(page.locator(".reply .text").last).to_have_text(CANARY)
    page.locator("#other button").click()
    expect(page.locator("#otherwise p")).to_have_text(CANARY)
    assert page.locator("img:not(h1 img), #log script, aside script, h1 ~ b").count() == 0
    assert page.title() == "pamdp"


def test_other_actions_say_something_else(start: Start, open_page: Open) -> None:
    running = start()
    page = open_page(running.url)
    page.get_by_label("You are").fill("bob")
    page.get_by_label("You are").press("Tab")
    talk(page, "hello there")
    page.get_by_label("You are").fill("ann")
    page.get_by_label("You are").press("Tab")
    talk(page, "good evening")
    own = page.locator(".reply .text").inner_text()
    for action in ("mean", "zero", "0"):
        page.get_by_label("Action", exact=True).select_option(action)
        page.locator("#other button").click()
        expect(page.locator("#otherwise li:not(.busy)").first).to_be_visible()
        expect(page.locator("#otherwise li.busy")).to_have_count(0)
    other, zero, mean = page.locator("#otherwise p").all_inner_texts()
    assert mean.split() == own.split() and zero != mean and other != mean
    assert "bob" in page.locator("#otherwise li").first.inner_text()


def test_by_keyboard_alone(start: Start, open_page: Open) -> None:
    page = open_page(start().url)
    expect(page.locator("#model option").first).to_be_attached()
    expect(page.locator("#say")).to_be_focused()
    page.keyboard.type("hello")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("there")
    page.keyboard.press("Enter")
    expect(page.locator(".said p")).to_have_text("hello\nthere")
    expect(page.locator(".judged")).to_have_count(1)
    expect(page.locator("#say")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="Good reply")).to_be_focused()
    width = "getComputedStyle(document.activeElement).outlineWidth"
    assert page.evaluate(width) == "3px", "the focus is not seen"
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Good reply")).to_have_attribute("aria-pressed", "true")
    reached = set()
    page.locator("h1").evaluate("e => { document.activeElement.blur(); window.getSelection().collapse(e); }")
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"model", "beside", "user", "log", "say", "send", "fresh", "added", "infer", "erase", "action"} <= reached


def test_a_screen_reader_is_told(start: Start, open_page: Open) -> None:
    page = open_page(start().url)
    talk(page, "hello there")
    log = page.get_by_role("log", name="What was said")
    expect(log).to_have_attribute("aria-live", "polite")
    expect(log).to_have_attribute("aria-busy", "false")
    expect(page.locator("#status")).to_have_text("The reply is there.")
    for role in ("banner", "main", "complementary"):
        expect(page.get_by_role(role)).to_have_count(1)
    nameless = page.evaluate("""() => [...document.querySelectorAll('input, select, textarea, button')]
      .filter(e => e.checkVisibility() && !(e.labels?.length || e.ariaLabel || e.textContent.trim()))
      .map(e => e.outerHTML)""")
    assert nameless == []
    expect(page.get_by_role("img", name=re.compile("mean action of 1 turns"))).to_be_visible()


def test_on_a_phone_nothing_is_wider_than_the_screen(start: Start, open_page: Open) -> None:
    page = open_page(start().url, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    expect(page.locator("#model option").first).to_be_attached()
    page.get_by_label("Side by side").check()
    page.locator("#say").fill("w" * 300)
    page.keyboard.press("Enter")
    expect(page.locator(".preferred")).to_be_visible()
    expect(page.locator("#path svg")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    wide = """() => [...document.querySelectorAll('body *')].filter(e => e.checkVisibility()
      && !e.closest('.unseen, .skip') && e.getBoundingClientRect().right > 390.5).map(e => e.outerHTML.slice(0, 90))"""
    assert page.evaluate(wide) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out(start: Start, open_page: Open, scheme: str) -> None:
    page = open_page(start().url, color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator("#model option").first).to_be_attached()
    talk(page, "hello there", "and again")
    page.get_by_role("button", name="Infer anew").click()
    expect(page.locator("#statements li")).to_have_count(1)
    page.get_by_role("button", name="Good reply").first.click()
    expect(page.get_by_text("Noted")).to_be_visible()
    found = page.evaluate(LUMINANCE)
    assert len(found) > 30
    assert [pair for pair in found if pair[0] < 4.5] == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 22, 26)") == (scheme == "dark")
    moving = "document.getAnimations().length"
    assert page.evaluate(moving) == 0


def test_a_key_is_asked_for_and_kept_for_the_session_only(start: Start, open_page: Open) -> None:
    import hashlib

    key = Key(sha256=hashlib.sha256(b"pamdp-secret").hexdigest())
    page = open_page(start(Keys({"shop": key})).url)
    expect(page.locator("#key")).to_be_focused()
    page.locator("#key").fill("pamdp-secret")
    page.keyboard.press("Tab")
    expect(page.locator("#model option").first).to_be_attached()
    page.locator("#say").fill("hello there")
    page.keyboard.press("Enter")
    expect(page.locator(".judged")).to_have_count(1)
    expect(page.locator("#path-panel")).to_be_hidden()  # not an admin's
    assert page.evaluate("[sessionStorage['pamdp-key'], localStorage.length, document.cookie]") == [
        "pamdp-secret",
        0,
        "",
    ]


def test_where_nobody_infers_there_is_nothing_to_ask_it_with(start: Start, open_page: Open) -> None:
    running = start()
    running.this.recorder.profiler = None  # type: ignore[union-attr]
    page = open_page(running.url)
    expect(page.locator("#profile-panel")).to_be_visible()
    expect(page.get_by_role("button", name="Erase everything")).to_be_visible()
    expect(page.locator("#infer")).to_be_hidden()


def test_without_a_memory_the_page_still_talks(start: Start, open_page: Open) -> None:
    page = open_page(start(memory=False).url)
    talk(page, "hello there")
    expect(page.locator("#path-panel")).to_be_visible()
    expect(page.locator("#profile-panel")).to_be_hidden()
    expect(page.locator(".judged")).to_have_count(0)


def make_run(folder: Path) -> Path:
    folder.mkdir()
    rows = [{"stage": "offline", "step": i, "reward": i / 10, "loss": 1 / (i + 1)} for i in range(20)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.toml").write_text(f'name = "{CANARY.replace(chr(34), chr(39))}"\n')
    (folder / "report.html").write_text("<!doctype html><title>r</title><style>p{color:red}</style><p>The report</p>")
    (folder.parent / "secret").write_text("secret")
    (folder / "reading").mkdir()
    (folder / "reading" / "sheet.html").symlink_to(folder.parent / "secret")
    return folder


def test_the_page_of_a_run(start: Start, open_page: Open, tmp_path: Path) -> None:
    running = start(source=str(make_run(tmp_path / "run")))
    page = open_page(f"{running.url}/run")
    expect(page.locator("figure svg")).to_have_count(2)
    page.locator("summary").click()
    expect(page.locator("pre")).to_contain_text("<img src=")
    assert page.locator("#links a").all_inner_texts() == ["The report"], "a link that leads out of the run is followed"
    with page.context.expect_page() as opened:
        page.locator("#links a").click()
    expect(opened.value.locator("p")).to_have_text("The report")
    assert opened.value.evaluate("origin") == "null", "a page of a run must not have the server's origin"
    address = opened.value.url
    assert httpx.get(address.replace("report.html", "sheet.html")).status_code == 404
    for name in ("../secret", "..%2fsecret", "config.toml", "reading-key.json"):
        assert httpx.get(address.replace("report.html", name)).status_code == 404
    assert httpx.get(f"{running.url}/run/guess/report.html").status_code == 404
    assert httpx.get(f"{running.url}/page/..%2fpages.py").status_code == 404
