"""Table 3, Figure 4 and the audit in miniature: trained, played, graded, killed, continued, rendered again."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pamdp import cli
from pamdp.calls_config import EndpointConfig, JudgeConfig, SimulatorConfig
from pamdp.errors import ConfigError, DataError, EndpointError
from pamdp.evaluation.transcripts import Transcript
from pamdp.files import read_json_lines
from pamdp.reproduce import main
from pamdp.reproduce.config import REINFORCED, UNTRAINED, OnlineReproduceConfig, load_config
from pamdp.reproduce.online import MAY_CHANGE
from pamdp.reproduce.tables import table
from pamdp.runs import Run
from pamdp.settings import load
from pamdp.stored import read_records, write_records
from pamdp.types import Message
from tests.tools.online import CANARY, TEACH, TEST, Bench, T, make_config
from tests.tools.spies import spy_on_reading
from tests.tools.tiny import make_tiny_backbone

RUN = CliRunner()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> OnlineReproduceConfig:
    return make_config(tmp_path_factory.mktemp("data") / "dialogues.jsonl")


@pytest.fixture(scope="module")
def whole(config: OnlineReproduceConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bench]:
    path, bench = tmp_path_factory.mktemp("whole") / "run", Bench()
    for target in ("table3", "fig4", "simulator"):
        bench.run(config, target, path)
    return path, bench


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_the_pages_are_written_with_everything_in_them(
    whole: tuple[Path, Bench], config: OnlineReproduceConfig
) -> None:
    path, _ = whole
    for target in ("table3", "fig4"):
        ends = (".csv", ".md", ".tex", ".json", "-vowels.svg", "-stops.svg")
        assert set(_files(path / target)) == {f"{target}{end}" for end in ends}
    found = json.loads((path / "table3" / "table3.json").read_text(encoding="utf-8"))
    rows = {(r["method"], r["judge"]): r for r in found["rows"]}
    assert set(rows) == {(m, j) for m in config.methods for j in ("vowels", "stops")}
    for (method, judge), row in rows.items():
        steps = [s for s in found["records"] if (s["method"], s["judge"]) == (method, judge)]
        assert [s["step"] for s in steps] == list(range(1, T + 1)) and steps[-1]["users"] == TEST
        assert steps[0]["replies"] == TEST * len(config.seeds) and row["masked"] == 0
        totals, gains = ([s[key] for s in steps] for key in ("return", "gain"))
        assert totals == pytest.approx([sum(gains[: t + 1]) for t in range(T)])
        assert totals == [row[f"step_{t + 1}"] for t in range(T)]
        if method == "PAMDP":
            assert row["paper"] == 1.7389
    pairs = {(lead["method"], lead["other"]) for lead in found["leads"]}
    assert pairs == {(m, "Vanilla") for m in config.methods[1:]} | {(m, "BC") for m in ("Prompt", "RL-base", "PAMDP")}
    assert all(lead["p"] <= lead["p_holm"] for lead in found["leads"])
    # Every method that learned made the same calls.
    calls = {row.pop("method"): row for row in found["calls_in_learning"]}
    assert set(calls) == {"RL-base", "PAMDP"} and calls["RL-base"] == calls["PAMDP"]
    assert calls["PAMDP"]["simulator"] == TEACH * T * len(config.seeds)
    page = (path / "table3" / "table3.md").read_text(encoding="utf-8")
    assert "vowels also gave" in page and "Only 2 seed(s)" in page and "+1.7389" in page


def test_all_methods_meet_the_same_users_with_the_same_first_words(
    whole: tuple[Path, Bench], config: OnlineReproduceConfig
) -> None:
    path, _ = whole
    users = json.loads((path / "users.json").read_text(encoding="utf-8"))
    assert len(users["test"]) == TEST and not set(users["train"]) & set(users["test"])
    for seed in config.seeds:
        talks = {m: read_records(path / f"seed-{seed}" / f"{m}.jsonl", Transcript) for m in config.methods}
        for name, found in talks.items():
            assert sorted(t.user_id for t in found) == users["test"], name
            assert [t.messages[0] for t in found] == [t.messages[0] for t in talks["Vanilla"]]
            assert all(len(t.exchanges) == T and t.messages[-1].role == "user" for t in found)
            assert all(e.known and e.reference for t in found for e in t.exchanges)
    # The scripted user says its seed: draws are those of the user and the turn, whoever replies.
    assert talks["PAMDP"][0].messages[2] == talks["Vanilla"][0].messages[2]
    first = read_records(path / "seed-0" / "Vanilla.jsonl", Transcript)
    assert first[0].messages[2] != talks["Vanilla"][0].messages[2]  # another seed, other draws


def test_the_audit_has_every_measure(whole: tuple[Path, Bench]) -> None:
    path, _ = whole
    assert set(_files(path / "simulator")) == {f"simulator.{end}" for end in ("csv", "md", "tex", "json", "svg")}
    found = json.loads((path / "simulator" / "simulator.json").read_text(encoding="utf-8"))
    assert found["imitation"]["places"] == 2 * TEST and found["imitation"]["masked"] == 0
    for name, turns in (("simulated", T + 1), ("recorded", 3)):
        for recogniser in ("likelihood", "words"):
            key = (name, f"told apart by {recogniser}")
            rows = [row for row in found["by_turn"] if (row["whose"], row["measure"]) == key]
            assert [row["turn"] for row in rows] == list(range(1, turns + 1))
            assert all(row["chance"] == pytest.approx(1 / 3) for row in rows)
        leaked = [row for row in found["by_turn"] if (row["whose"], row["measure"]) == (name, "leaked")]
        assert [row["turn"] for row in leaked] == list(range(1, turns + 1))
        assert len(found["audits"][name]["leaked"]) == turns and found["audits"][name]["role_breaks"] == 0
    assert found["audits"]["recorded"]["messages"] == 3 * TEST


def test_an_audit_that_could_not_be_ended_is_not_begun(config: OnlineReproduceConfig, tmp_path: Path) -> None:
    bench = Bench()
    with pytest.raises(ConfigError, match=r"from 3 others, and the 3 test users are 3 different .* set others=2"):
        bench.run(config.model_copy(update={"others": 3}), "simulator", tmp_path / "run")
    assert bench.said == [] and not (tmp_path / "run").exists()


def test_an_audit_follows_seeds_and_resamples_that_changed(
    config: OnlineReproduceConfig, whole: tuple[Path, Bench], tmp_path: Path
) -> None:
    """What is stored are single answers: other resamples cost nothing, and another first seed finds its own."""
    path, again = tmp_path / "run", Bench()
    shutil.copytree(whole[0], path)
    before = (path / "simulator" / "simulator.csv").read_text(encoding="utf-8")
    more = config.model_copy(update={"resamples": 7})
    again.run(more, "simulator", path)
    resampled = (path / "simulator" / "simulator.csv").read_text(encoding="utf-8")
    assert again.said == [] and resampled != before
    rows = [list(csv.DictReader(io.StringIO(text))) for text in (before, resampled)]
    for row in (row for some in rows for row in some):
        del row["low"], row["high"]
    assert rows[0] == rows[1]  # the intervals alone are others
    again.run(config.model_copy(update={"seeds": (1, 0)}), "simulator", path)
    assert [said.split()[0] for said in again.said] == ["simulated", "likelihood", "simulated"]
    places = [(path / "audit" / f"seed-{seed}" / "places.jsonl").read_bytes() for seed in (0, 1)]
    assert places[0] != places[1]
    Bench(0).run(config, "simulator", path)
    assert (path / "simulator" / "simulator.csv").read_text(encoding="utf-8") == before


def test_the_pace_of_leaks_is_that_of_the_difficulty(
    config: OnlineReproduceConfig, whole: tuple[Path, Bench], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path / "run")
    file = tmp_path / "run" / "seed-0" / "Vanilla.jsonl"
    telling = [
        replace(talk, messages=(*talk.messages[:2], Message("user", talk.persona.profile), *talk.messages[3:]))
        for talk in read_records(file, Transcript)
    ]
    write_records(file, telling)  # all is told in the second message
    online = config.online.model_copy(update={"difficulty": "reserved"})
    found = [
        json.loads(main.render(each, table("simulator"), tmp_path / "run").json)
        for each in (config, config.model_copy(update={"online": online}))
    ]
    assert [f["pace"] for f in found] == [1.0, 0.5]
    slow, fast = (f["audits"]["simulated"]["leaked"] for f in reversed(found))
    assert slow[0] == fast[0] and slow[1] > fast[1] > 0
    page = (tmp_path / "run" / "simulator" / "simulator.md").read_text(encoding="utf-8")
    assert "beyond one sentence every 2 turns" in page


def test_answers_that_broke_the_part_are_counted_with_the_dialogues(
    config: OnlineReproduceConfig, tmp_path: Path
) -> None:
    """A user that never leaves its part on paper leaves it in every second answer, and one has no answer at all."""
    bench, count, whose = Bench(), list[int](), list[str]()

    def answer(messages: Sequence[Message], seed: int) -> str:
        count.append(seed)
        who = messages[0].content[:200]  # users are asked at the same time; three answers of one of them are silent
        silent = len(count) > TEST * T and len(whose) < 3 and who in (whose[:1] or [who])
        whose.extend([who] * silent)
        return "As an AI, I have no bees." if silent or len(count) % 2 else f"Well, about {seed % 1000} bees."

    bench.answers["simulator"] = answer
    bench.run(config.model_copy(update={"seeds": (0,)}), "simulator", tmp_path / "run")
    found = json.loads((tmp_path / "run" / "simulator" / "simulator.json").read_text(encoding="utf-8"))
    audit = found["audits"]["simulated"]
    said = [s for talk in read_records(tmp_path / "run" / "seed-0" / "Vanilla.jsonl", Transcript) for s in talk.said]
    assert len(said) == TEST * (T + 1)
    assert audit["role_breaks"] == 0 and audit["rejected"] == {"out of the part": sum(len(s.rejected) for s in said)}
    assert audit["rejected"]["out of the part"] >= TEST * T / 2
    assert audit["stock"] >= 1
    assert audit["stock"] == sum(s.stock for s in said) and audit["messages"] + audit["stock"] == len(said)
    assert audit["answers"] == audit["rejected"]["out of the part"] + TEST * T - audit["stock"]
    page = (tmp_path / "run" / "simulator" / "simulator.md").read_text(encoding="utf-8")
    assert "answers rejected: out of the part" in page and "stock messages" in page


def test_rendered_again_it_is_the_same_bytes_and_nothing_is_done_twice(
    whole: tuple[Path, Bench], config: OnlineReproduceConfig
) -> None:
    path, _ = whole
    again = Bench(0)
    for target in ("table3", "fig4", "simulator"):
        before = _files(path / target)
        main.render(Run(path).config(OnlineReproduceConfig), table(target), path)
        assert _files(path / target) == before
        again.run(config, target, path)
    assert again.said == []


@pytest.mark.parametrize("calls", [4, 20, 31])
def test_a_run_whose_users_fell_silent_goes_on_at_the_turn(
    config: OnlineReproduceConfig, whole: tuple[Path, Bench], tmp_path: Path, calls: int
) -> None:
    first, second = Bench(calls), Bench()
    with pytest.raises(EndpointError, match="nobody answers"):
        first.run(config, "table3", tmp_path / "run")
    second.run(config, "table3", tmp_path / "run")
    assert _files(tmp_path / "run" / "table3") == _files(whole[0] / "table3")
    for seed in config.seeds:
        for method in config.methods:
            name = f"seed-{seed}/{method}.jsonl"
            assert (tmp_path / "run" / name).read_bytes() == (whole[0] / name).read_bytes()


def test_no_profile_is_in_what_a_policy_reads(
    config: OnlineReproduceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = spy_on_reading(monkeypatch)
    mine = config.model_copy(update={"seeds": (0,), "methods": ("Vanilla", "BC")})
    Bench().run(mine, "table3", tmp_path / "run")
    decode = make_tiny_backbone().tokenizer.decode
    assert len(read.policy) >= 2 * TEST * (T + 1) and not any(CANARY in decode(list(ids)) for ids in read.policy)
    stored = (tmp_path / "run" / "seed-0" / "BC.jsonl").read_text(encoding="utf-8")
    assert CANARY in stored  # judges have it: the test can fail


def test_a_missing_piece_is_named(config: OnlineReproduceConfig, whole: tuple[Path, Bench]) -> None:
    file = whole[0] / "graded" / "stops" / "BC.seed-1.jsonl"
    text = file.read_text(encoding="utf-8")
    assert len(read_json_lines(file)) == TEST * T
    try:
        file.unlink()
        with pytest.raises(DataError, match=r"BC\.seed-1\.jsonl"):
            main.render(config, table("table3"), whole[0])
    finally:
        file.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("target", ["table3", "fig4", "simulator"])
@pytest.mark.parametrize("preset", ["cpu", "paper"])
def test_every_page_can_be_planned_where_nothing_is_at_hand(
    target: str, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = RUN.invoke(cli.app, ["reproduce", target, "--preset", preset, "--dry-run", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.output)
    pieces = found["pieces"]
    assert list(tmp_path.iterdir()) == [] and found["totals"]["calls"] == sum(p["calls"] for p in pieces) > 0
    if preset == "paper" and target != "simulator":
        assert {p["method"] for p in pieces} == {*UNTRAINED, *REINFORCED}
        learns = [p for p in pieces if p["stage"] == "learns"]
        assert len({json.dumps({**p, "method": ""}) for p in learns}) == len(learns) / len(REINFORCED)
        assert [p["calls"] for p in learns if p["role"] == "assistant"] == [256 * 6 * 3] * len(REINFORCED)
        calls = [p["calls"] for p in pieces if (p["method"], p["role"]) == ("Vanilla", "judge")]
        assert calls == [2 * 128 * 6 * 3] * 2 and "assumed" in found["data"]["users"]  # two judges, both orders
        assert all(
            p["prompt_tokens"] > p["calls"] and p["completion_tokens"] > 0 for p in learns if p["kind"] != "local"
        )
    if preset == "paper" and target == "simulator":
        assert {p["role"]: p["calls"] for p in pieces if p["stage"] == "is audited"} == {
            "simulator": 128 * 7, "judge": 3 * 128 * 7, "profiler": 128 * 7 + 128 * 8,
        }  # fmt: skip
    shown = RUN.invoke(cli.app, ["reproduce", target, "--preset", preset, "--dry-run"], env={"COLUMNS": "80"}).output
    assert all(word in shown for word in ("evaluated", "assistant", "simulator")) and "…" not in shown
    if preset == "cpu":
        assert found["settings"]["train_users"] == found["settings"]["test_users"] == 24


def test_the_cpu_preset_meets_every_user_once() -> None:
    found = load_config(OnlineReproduceConfig, "cpu")
    assert found.online.rounds * found.online.users == found.train_users == found.test_users == 24
    assert found.online.simulator.kind == found.online.writer.kind == found.judge.kind == "embedded"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("methods=[PAMPD]", "no method 'PAMPD'; there are: Vanilla"),
        (f"second.model={JudgeConfig().model}", "who rewards is never the only judge"),
        ("auditor=judge", 'set judge.kind to "openai" or "local"'),
        ("recognisers=[profiler]", 'set rl.profile to "inferred"'),
        ("seeds=[1, 1]", "the same one stands twice"),
    ],
)
def test_what_a_user_can_mend_is_said(override: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(OnlineReproduceConfig, "cpu", (), [override])
    assert says in str(error.value) and len(str(error.value)) < 250 and "\n" not in str(error.value)


def test_a_role_may_move_to_another_server_in_the_middle(config: OnlineReproduceConfig) -> None:
    assert {"second.base_url", "online.simulator.base_url"} <= set(MAY_CHANGE)
    moved = load(SimulatorConfig, (), ["base_url=http://there/v1"])
    assert isinstance(moved, EndpointConfig) and moved.base_url == "http://there/v1"
