"""The online table ends whatever its models do: what fails is masked and counted, and nothing is scored for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pamdp.config import DataConfig
from pamdp.evaluation.transcripts import Transcript
from pamdp.files import read_json_lines
from pamdp.journal import Journal, _Record
from pamdp.reproduce import online
from pamdp.reproduce.config import OnlineReproduceConfig
from pamdp.stored import read_records
from pamdp.types import Message
from tests.tools.online import TEST, Bench, T, make_config
from tests.tools.scripted import ERRORS, FAULTS

METHODS = ("Vanilla", "BC")


def _soup(messages: Sequence[Message], seed: int) -> str:
    return "Have a soup."


def _bench(**faults: dict[str, float]) -> Bench:
    bench = Bench()
    bench.asks, bench.answers["reference"] = True, _soup
    bench.faults.update(faults)  # type: ignore[arg-type]
    return bench


def _rewards(path: Path, judge: str) -> list[object]:
    files = [path / "graded" / judge / f"{method}.seed-0.jsonl" for method in METHODS]
    return [record["reward"] for file in files for record in read_json_lines(file)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> OnlineReproduceConfig:
    mine = make_config(tmp_path_factory.mktemp("data") / "dialogues.jsonl")
    return mine.model_copy(update={"seeds": (0,), "methods": METHODS})


@pytest.fixture(scope="module")
def plain(config: OnlineReproduceConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "run"
    _bench().run(config, "table3", path)
    return path


def test_without_faults_nothing_is_masked(plain: Path) -> None:
    found = _rewards(plain, "stops")
    assert len(found) == len(METHODS) * TEST * T and set(found) <= {1.0, -1.0, 0.5}


@pytest.mark.parametrize("role", ["reference", "judge"])
@pytest.mark.parametrize("faults", [*((name,) for name in FAULTS), FAULTS], ids=lambda names: "+".join(names))
def test_the_table_ends_and_what_failed_is_masked_and_counted(
    config: OnlineReproduceConfig, plain: Path, tmp_path: Path, role: str, faults: tuple[str, ...]
) -> None:
    path, bench = tmp_path / "run", _bench(**{role: dict.fromkeys(faults, 0.6 / len(faults))})
    bench.run(config, "table3", path)
    lacking = sum(
        e.reference is None
        for m in METHODS
        for t in read_records(path / "seed-0" / f"{m}.jsonl", Transcript)
        for e in t.exchanges
    )
    before, after = _rewards(plain, "stops"), _rewards(path, "stops")
    # A reply has the reward that it has without faults, or none.
    assert len(after) == len(before) and all(b in (None, a) for a, b in zip(before, after, strict=True))
    masked = after.count(None)
    if set(faults) <= set(ERRORS):
        assert masked == 0  # what passes costs calls and no reward
    elif len(faults) == 1:
        assert masked > 0
    assert lacking == (masked if role == "reference" else 0)
    found = json.loads((path / "table3" / "table3.json").read_text(encoding="utf-8"))
    assert sum(row["masked"] for row in found["rows"] if row["judge"] == "stops") == masked
    kept = [x for x in after if x is not None]
    assert sum(step["replies"] for step in found["records"] if step["judge"] == "stops") == len(kept)
    costs = json.loads((path / "costs.json").read_text(encoding="utf-8"))
    assert bool(costs[role]["failed"]) == bool(set(faults) & set(ERRORS))


def test_what_a_turn_cost_is_on_disk_before_the_turn_is(
    config: OnlineReproduceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill runs no `finally`: whatever is stored must have been paid for on disk."""
    path, append, store = tmp_path / "run", Journal._append, online.write_records
    paid, stored = list[int](), list[dict[str, int]]()

    def calls(role: str) -> int:
        costs = json.loads((path / "costs.json").read_text(encoding="utf-8"))
        return int(costs.get(role, {"calls": 0})["calls"])

    def spy(self: Journal, record: _Record) -> None:
        append(self, record)
        if record.turn is not None:
            paid.append(calls("simulator"))

    def spy_too(file: Path, talks: Sequence[Transcript]) -> None:
        if isinstance(talks[0], Transcript):
            stored.append({role: calls(role) for role in ("simulator", "reference")})
        store(file, talks)

    monkeypatch.setattr(Journal, "_append", spy)
    monkeypatch.setattr(online, "write_records", spy_too)
    _bench().run(config, "table3", path)
    # One turn, one call of the simulator: none is in the journal and not in the costs.
    assert len(paid) == 2 * TEST * T and all(n >= i + 1 for i, n in enumerate(paid))
    assert stored == [{"simulator": n * TEST * T, "reference": n * TEST * T} for n in (1, 2)]
    assert calls("judge") == 2 * TEST * T


def test_users_of_a_pool_learn_and_evaluate_from_their_own_first_words(
    config: OnlineReproduceConfig, tmp_path: Path
) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    for name, texts in (("profile", [f"Keeps {n} bees." for n in range(6)]), ("personality", ["Brief.", "Loud."])):
        (pool / f"{name}.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    mine = config.model_copy(
        update={
            "data": DataConfig(path=str(pool), test_share=0.5), "methods": ("Vanilla", "PAMDP"),
            "online": config.online.model_copy(update={"opening": "own"}),
        }
    )  # fmt: skip
    Bench().run(mine, "table3", tmp_path / "run")
    talks = read_records(tmp_path / "run" / "seed-0" / "PAMDP.jsonl", Transcript)
    assert len(talks) == TEST and all(t.messages[0].content.startswith("Well, about") for t in talks)
    assert all(t.persona.profile.startswith("Keeps") and t.persona.personality for t in talks)
