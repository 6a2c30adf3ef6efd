"""A table in miniature: trained, judged, killed, continued, and rendered again to the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pamdp.baselines.latent import find
from pamdp.baselines.method import Job, Method
from pamdp.baselines.replies import Replier, Replies
from pamdp.calls_config import JudgeConfig
from pamdp.config import DataConfig
from pamdp.data import write_dialogues
from pamdp.errors import ConfigError, DataError, PamdpError, RunError
from pamdp.files import read_json_lines
from pamdp.registry import METHODS, load_plugins
from pamdp.reproduce import main
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.tables import table
from pamdp.runs import Run
from pamdp.types import Dialogue, Persona, Turn
from tests.tools.cli_docs import ROOT
from tests.tools.methods import CLONE, MODEL, RL, TUNE, Bench, few

pytest.importorskip("trl")
DIALOGUES = [*few("train", 3), *few("test", 2)]
SMALL = replace(table("table6"), rows=("Prompt", "FPFT", "BC", "PAMDP"), pairs=(("PAMDP", "BC"),))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ReproduceConfig:
    path = tmp_path_factory.mktemp("data") / "dialogues.jsonl"
    write_dialogues(path, DIALOGUES)
    return ReproduceConfig(
        seeds=(0, 1), models=("tiny",), judges=("vowels", "stops"), judge=JudgeConfig(model="vowels"), resamples=200,
        aloe=DataConfig(path=str(path), test_share=0.4), model=MODEL, clone=CLONE, rl=RL, tune=TUNE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(config: ReproduceConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bench]:
    path, bench = tmp_path_factory.mktemp("whole") / "run", Bench()
    bench.run(config, SMALL, path)
    return path, bench


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_a_table_is_written_with_everything_in_it(whole: tuple[Path, Bench]) -> None:
    path, _ = whole
    assert set(_files(path / "table6")) == {f"table6.{end}" for end in ("csv", "md", "tex", "json", "svg")}
    found = json.loads((path / "table6" / "table6.json").read_text(encoding="utf-8"))
    rows = {(c["method"], c["against"], c["judge"]): c for c in found["rows"]}
    pairs = [*((m, "Vanilla") for m in SMALL.rows), ("PAMDP", "BC")]
    assert set(rows) == {(m, b, judge) for m, b in pairs for judge in ("vowels", "stops")}
    states = json.loads((path / "ALOE-tiny" / "splits.json").read_text(encoding="utf-8"))["seed-0"]["test_turns"]
    for (method, _, _), row in rows.items():
        seeds = 1 if method == "Prompt" else 2
        assert row["seeds"] == seeds and row["wins"] + row["losses"] + row["ties"] == seeds * states
        assert row["low"] <= row["r_w"] <= row["high"] and 0 <= row["p"] <= row["p_holm"] <= 1
    assert rows["PAMDP", "Vanilla", "stops"]["printed"][0]["rate"] == 0.4655
    assert {a["second"] for a in found["agreement"]} == {"vowels", "stops"}
    assert len(found["differences"]) == 2 * 6  # every two of four methods, under two judges
    texts, budgets = ({r["method"]: r for r in found[part]} for part in ("texts", "budgets"))
    assert set(budgets) == set(texts) == {"Vanilla", *SMALL.rows}
    assert texts["BC"]["nll"] > 0 and budgets["PAMDP"]["verdicts"] > 0
    page = (path / "table6" / "table6.md").read_text(encoding="utf-8")
    assert (
        "significant" in page and "0.4655 (unnamed" in page and "Only 2 seed(s)" in page and "vowels also gave" in page
    )


def test_no_user_is_in_both_parts(whole: tuple[Path, Bench]) -> None:
    for split in json.loads((whole[0] / "ALOE-tiny" / "splits.json").read_text(encoding="utf-8")).values():
        assert split["train"] and split["test"] and not set(split["train"]) & set(split["test"])


def test_no_method_is_given_anything_of_a_test_user_but_the_history(
    config: ReproduceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every user has canaries in the persona, in what was inferred, in unsaid replies and in the last reply."""

    def person(name: str) -> Dialogue:
        first = Turn(f"said {name}", f"said {name}", f"secret {name}", inferred=Persona(f"secret {name}"))
        last = replace(first, preferred=f"secret {name}")
        return Dialogue(f"id-{name}", name, Persona(f"secret {name}", f"secret {name}"), (first, last))

    users = ["anna", "bert", "cleo", "dora", "emil"]
    write_dialogues(tmp_path / "d.jsonl", [person(name) for name in users])
    data = DataConfig(path=str(tmp_path / "d.jsonl"), test_share=0.4)
    seen: list[tuple[str, str]] = []

    def spied(method: Method) -> Method:
        def train(job: Job) -> Replier:
            seen.append(("train", repr(job.train)))
            replier = method.train(job)
            write = replier.write

            def writing(dialogues: Sequence[Dialogue], progress: Callable[[int], None] | None = None) -> Replies:
                seen.append(("reply", repr(dialogues)))
                return write(dialogues, progress)

            return SimpleNamespace(write=writing)

        return replace(method, train=train)

    spies = {name: spied(find(name)) for name in METHODS}
    monkeypatch.setattr(METHODS, "_parts", spies)
    every = replace(SMALL, rows=tuple(name for name in spies if name != "Vanilla"), pairs=())
    mine = config.model_copy(update={"aloe": data, "seeds": (0,)})
    Bench().run(mine, every, tmp_path / "run")
    split = json.loads((tmp_path / "run" / "ALOE-tiny" / "splits.json").read_text(encoding="utf-8"))["seed-0"]
    assert len(split["test"]) == 2 and len(seen) == 2 * len(spies)
    for phase, text in seen:
        if phase == "train":
            assert all(name not in text for name in split["test"])
            assert all(f"secret {name}" in text for name in split["train"])
        else:
            assert all(f"said {name}" in text and f"secret {name}" not in text for name in split["test"])
            assert all(name not in text for name in split["train"])


def test_rendered_again_it_is_the_same_bytes(whole: tuple[Path, Bench]) -> None:
    path, _ = whole
    before = _files(path / "table6")
    main.render(Run(path).config(ReproduceConfig), SMALL, path)
    assert _files(path / "table6") == before


def test_what_is_there_is_not_done_again(config: ReproduceConfig, whole: tuple[Path, Bench]) -> None:
    path, _ = whole
    again = Bench()
    again.run(config, SMALL, path)
    assert again.said == []


@pytest.mark.parametrize("dies_at", [3, 5, 9])
def test_a_killed_run_goes_on_where_it_was(
    config: ReproduceConfig, whole: tuple[Path, Bench], tmp_path: Path, dies_at: int
) -> None:
    path, bench = whole
    first, second = Bench(dies_at), Bench()
    with pytest.raises(KeyboardInterrupt):
        first.run(config, SMALL, tmp_path / "run")
    second.run(config, SMALL, tmp_path / "run")
    assert [*first.said[:-1], *second.said] == bench.said
    assert _files(tmp_path / "run" / "table6") == _files(path / "table6")


def test_two_processes_make_the_same_table(config: ReproduceConfig, whole: tuple[Path, Bench], tmp_path: Path) -> None:
    """One that was begun by one process is continued by two: its clone is there, and what it lacks is done once."""
    first, second = Bench(dies_at=2), Bench()
    with pytest.raises(KeyboardInterrupt):
        first.run(config, SMALL, tmp_path / "run")
    second.run(config, SMALL, tmp_path / "run", jobs=2)
    assert _files(tmp_path / "run" / "table6") == _files(whole[0] / "table6")
    assert sorted(second.said) == sorted(f"done: {said}" for said in whole[1].said[2:])
    # What shares a clone is one process's.
    assert second.said.index("done: ALOE, tiny, seed 1: PAMDP") == second.said.index("done: ALOE, tiny, seed 1: BC") + 1


def test_what_a_process_of_a_crew_fails_with_is_raised(config: ReproduceConfig, tmp_path: Path) -> None:
    bench = Bench(only_here=True)
    with pytest.raises(PamdpError, match="no model tiny in this process"):
        bench.run(config, SMALL, tmp_path / "run", jobs=2)
    assert bench.said == []


def test_other_settings_are_refused(config: ReproduceConfig, whole: tuple[Path, Bench]) -> None:
    other = config.model_copy(update={"aloe": config.aloe.model_copy(update={"test_dialogues": 1})})
    with pytest.raises(ConfigError, match=r"aloe\.test_dialogues was 0, is 1"):
        Bench().run(other, SMALL, whole[0])


def test_folds_turn_with_the_seed(config: ReproduceConfig, tmp_path: Path) -> None:
    """Over as many seeds as folds every dialogue tests once, and Vanilla replies in each fold."""
    folder = tmp_path / "prefeval"
    folder.mkdir()
    for topic in ("music", "food", "sport"):
        talk = {
            "0": {"user": f"I like {topic}", "assistant": "Good."},
            "1": {"user": "And you?", "assistant": "Me too."},
        }
        items = [{"preference": f"{topic} {n}", "persona": "somebody", "conversation": talk} for n in range(2)]
        (folder / f"{topic}.json").write_text(json.dumps(items), encoding="utf-8")
    sources = {"aloe": DataConfig(path=""), "prefeval": DataConfig(path=str(folder), format="prefeval", folds=3)}
    mine = config.model_copy(update={**sources, "seeds": (0, 1, 2), "scorers": ("kind",)})
    only = replace(table("table2"), rows=("Prompt",))
    Bench().run(mine, only, tmp_path / "run")
    cell = tmp_path / "run" / "PrefEval-tiny"
    tested = [row["dialogue"] for n in range(3) for row in read_json_lines(cell / f"seed-{n}" / "Prompt.jsonl")]
    assert len(tested) == 12 and len(set(tested)) == 6
    found = json.loads((tmp_path / "run" / "table2" / "table2.json").read_text(encoding="utf-8"))
    (row, _) = found["rows"]
    assert row["wins"] + row["losses"] + row["ties"] == 12 and len(row["printed"]) == 2
    # PrefEval's persons have a preference, so it is asked for.
    shares = found["scores"][1]["categories"]
    assert sum(shares.values()) == pytest.approx(1) and shares["followed"] + shares["inconsistent"] == pytest.approx(1)


def test_a_method_that_cannot_learn_from_the_data_stops_no_table(config: ReproduceConfig, tmp_path: Path) -> None:
    bare = [replace(d, turns=tuple(replace(t, rejected=None, chosen="preferred") for t in d.turns)) for d in DIALOGUES]
    write_dialogues(tmp_path / "d.jsonl", bare)
    mine = config.model_copy(update={"aloe": DataConfig(path=str(tmp_path / "d.jsonl"), test_share=0.4)})
    two = replace(SMALL, rows=("Prompt", "DPO"), pairs=(("DPO", "Prompt"),))
    path, bench = tmp_path / "run", Bench()
    bench.run(mine, two, path)
    assert not any("DPO" in said for said in bench.said)
    before = _files(path / "table6")
    found = json.loads(before["table6.json"])
    lacking = {r["method"]: r["not_applicable"] for r in found["rows"] if "not_applicable" in r}
    assert lacking == {"DPO": "no training turn has a preferred and a rejected reply"}
    said = {r["method"] for r in found["texts"]}
    assert {r["method"] for r in found["rows"]} - set(lacking) == said - {"Vanilla"} == {"Prompt"}
    assert b"DPO is not applicable: no training turn" in before["table6.md"]
    assert before["table6.csv"].decode().splitlines()[-1].endswith("a preferred and a rejected reply")
    main.render(Run(path).config(ReproduceConfig), two, path)
    assert _files(path / "table6") == before
    planned = json.loads(main.plan(mine, two, path).json)
    assert {p["method"] for p in planned["pieces"]} == {"Vanilla", "Prompt"}
    assert planned["inapplicable"] == {"DPO, ALOE": f"not applicable, {lacking['DPO']}"}
    with pytest.raises(DataError, match="no method can learn"):
        Bench().run(mine, replace(two, rows=("DPO",), pairs=()), tmp_path / "other")


def test_scores_of_single_replies_are_given_once_and_shown(config: ReproduceConfig, tmp_path: Path) -> None:
    path, bench = tmp_path / "run", Bench()
    only = replace(SMALL, rows=("Prompt",), pairs=())
    bench.run(config, only, path)
    # Scorers may come later, to a run that is there.
    scored = config.model_copy(update={"scorers": ("kind", "strict")})
    bench.run(scored, only, path)
    assert next(said for said in bench.said if "scores" in said).endswith("kind scores Vanilla")
    found = json.loads((path / "table6" / "table6.json").read_text(encoding="utf-8"))
    rows = {(s["method"], s["scorer"]): s for s in found["scores"]}
    assert set(rows) == {(m, s) for m in ("Vanilla", "Prompt") for s in ("kind", "strict")}
    replies = read_json_lines(path / "ALOE-tiny" / "seed-0" / "Prompt.jsonl")
    ratings = [1 + len(str(row["reply"])) % 5 for row in replies]
    assert rows["Prompt", "kind"]["rating"] == pytest.approx(sum(ratings) / len(ratings))
    (both,) = found["scorers"]
    assert both["kappa_of_ratings"] == pytest.approx(1.0) and not rows["Prompt", "kind"]["categories"]
    before, count = _files(path / "table6"), len(bench.said)
    assert "## Scores\n" in before["table6.md"].decode()
    bench.run(scored, only, path)
    assert len(bench.said) == count and _files(path / "table6") == before
    print_file = path / "ALOE-tiny" / "scored" / "kind" / "fingerprint.json"
    print_file.write_text('{"name": "other"}', encoding="utf-8")
    with pytest.raises(RunError, match="another model"):
        bench.run(scored, only, path)


def test_the_example_adds_a_row(config: ReproduceConfig, tmp_path: Path) -> None:
    example = ROOT / "examples" / "add_a_method.py"
    load_plugins([example])
    with_it = config.model_copy(update={"methods": ("Brief",)})
    only = replace(table("table6"), rows=(), pairs=())
    Bench().run(with_it, only, tmp_path / "run")
    assert "Brief" in (tmp_path / "run" / "table6" / "table6.csv").read_text(encoding="utf-8")


def test_a_missing_judge_is_found_before_any_training(config: ReproduceConfig, tmp_path: Path) -> None:
    bench = Bench()
    with pytest.raises(PamdpError, match="no judge 'moon'"):
        bench.run(config.model_copy(update={"judges": ("vowels", "moon")}), SMALL, tmp_path / "run")
    assert bench.said == [] and not (tmp_path / "run").exists()


def test_histories_longer_than_a_backbone_are_found_before_training(config: ReproduceConfig, tmp_path: Path) -> None:
    clone = config.clone.model_copy(update={"max_context": 2048})
    reply = max(config.clone.max_reply, config.rl.max_reply)
    with pytest.raises(ConfigError, match=rf"tiny has 2048 positions.*set clone\.max_context={2048 - reply}$"):
        Bench().run(config.model_copy(update={"clone": clone}), SMALL, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_piece_is_named(config: ReproduceConfig, whole: tuple[Path, Bench], tmp_path: Path) -> None:
    file = whole[0] / "ALOE-tiny" / "seed-1" / "BC.jsonl"
    text = file.read_text(encoding="utf-8")
    try:
        file.unlink()
        with pytest.raises(DataError, match=r"BC\.jsonl"):
            main.render(Run(whole[0]).config(ReproduceConfig), SMALL, whole[0])
    finally:
        file.write_text(text, encoding="utf-8")
