"""A browser, and servers with the page: tiny policies, a store, and users whose profiles a scripted model infers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pamdp.env.profile import Profiler
from pamdp.models.critics import DualCritic
from pamdp.serve.keys import Keys
from pamdp.serve.models import Models
from pamdp.serve.pages import page_router
from pamdp.serve.profiles import Profiles
from pamdp.serve.store import Store
from tests.tools.scripted import ScriptedChat
from tests.tools.serving import Running, make_models, serving

CHROMIUM = "/usr/bin/chromium"
ERRORS = "page errors, requests to elsewhere, and what the policy of contents forbade"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip where a browser is missing, and say what brings it."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        why = "playwright is not installed: `make test-browser` brings it"
    else:
        why = "" if Path(CHROMIUM).exists() else f"there is no {CHROMIUM}: apt-get install chromium"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")
            if why:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def models() -> Models:
    found = dict(make_models())
    policy = found["pamdp"].policy
    torch.manual_seed(3)
    critics = DualCritic(policy.width, policy.width, 5.0)
    torch.nn.init.normal_(critics.v_h.head.weight)
    return found | {"pamdp": replace(found["pamdp"], critics=critics)}


@pytest.fixture
def findings() -> list[str]:
    """What the scripted model infers of whoever asks; tests put in other lines."""
    return ["[1] says hello"]


Start = Callable[..., Running]


@pytest.fixture
def start(models: Models, tmp_path: Path, findings: list[str]) -> Iterator[Start]:
    """Starts a server with the page: start(keys, *settings, source=...)."""
    with ExitStack() as stack:

        def started(keys: Keys = Keys(), *settings: str, source: str = "shipped", memory: bool = True) -> Running:
            store = Store(tmp_path / "store.db")
            profiles = Profiles(store, Profiler(ScriptedChat(lambda messages, seed: "\n".join(findings))))
            running = stack.enter_context(
                serving(models, keys, *settings, routers=[page_router(source)], profiles=profiles if memory else None)
            )
            if memory:
                running.store = store  # type: ignore[attr-defined]
            return running

        yield started


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: object) -> Iterator[Callable[..., object]]:
    """Opens an address; in the end nothing may have failed, left the origin or broken the page's policy."""
    seen: list[str] = []
    contexts = []

    def opened(url: str, **options: object) -> object:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})  # type: ignore[attr-defined]
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        origin = "/".join(url.split("/")[:3])
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda r: None if r.url.startswith((origin, "blob:")) else seen.append(f"left: {r.url}"))
        page.on("console", lambda m: seen.append(m.text) if "Content Security Policy" in m.text else None)
        page.add_init_script(
            "addEventListener('securitypolicyviolation',"
            " e => console.error('Content Security Policy: ' + e.violatedDirective))"
        )
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert seen == [], ERRORS
