"""Each layout, by hand: what stands in a file and the dialogue or pair that it must become."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pamdp.data import load_dialogues, load_pairs, load_personas
from pamdp.errors import DataError
from pamdp.types import Dialogue, Message, Persona, PreferencePair, Turn


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def aloe(**changes: object) -> dict[str, object]:
    return {
        "profile": "She keeps bees.",
        "personality": "Curt.",
        "conversations": [
            {"user": "Hi", "assistant": {"preferred": "Hello.", "rejected": ["", "Yo!", "Hey!"]}, "chosen": "rejected",
             "inferred_profile": "None", "inferred_personality": "None."},
            {"user": "They swarm.", "assistant": {"preferred": "Box them.", "rejected": "Aw!"}, "chosen": "preferred",
             "inferred_profile": "Has bees.", "inferred_personality": "Nonetheless calm."},
        ],
    } | changes  # fmt: skip


def test_aloe(tmp_path: Path) -> None:
    loaded = load_dialogues(write(tmp_path / "conversations.jsonl", aloe()))
    (dialogue,) = loaded
    assert dialogue.id == "conversations:1" and len(dialogue.user_id) == 12
    assert dialogue.persona == Persona("She keeps bees.", "Curt.")
    assert dialogue.turns == (
        Turn("Hi", "Hello.", "Yo!", "rejected", Persona("", "")),
        Turn("They swarm.", "Box them.", "Aw!", "preferred", Persona("Has bees.", "Nonetheless calm.")),
    )
    assert loaded.repaired == {"replies given as lists, the first text taken": 1}
    assert [message.content for message in dialogue.history(1)] == ["Hi", "Yo!", "They swarm."]


def test_aloe_users_are_profiles_unless_named(tmp_path: Path) -> None:
    records = [aloe(), aloe(profile="she keeps  Bees."), aloe(profile="He sails."), aloe(user_id="me", id="first")]
    dialogues = load_dialogues(write(tmp_path / "a.jsonl", *records)).dialogues
    assert dialogues[0].user_id == dialogues[1].user_id != dialogues[2].user_id
    assert (dialogues[3].user_id, dialogues[3].id) == ("me", "first")


@pytest.mark.parametrize("text", ['"She keeps bees."\n', '"She keeps bees."'])
def test_aloe_profiles_copied_with_their_quotation_marks(text: str, tmp_path: Path) -> None:
    plain, quoted = load_dialogues(write(tmp_path / "a.jsonl", aloe(), aloe(profile=text)))
    assert quoted.persona == plain.persona and quoted.user_id == plain.user_id


def test_aloe_profile_that_only_begins_with_a_quotation(tmp_path: Path) -> None:
    (dialogue,) = load_dialogues(write(tmp_path / "a.jsonl", aloe(profile='"Bee" is what they call her.')))
    assert dialogue.persona.profile == '"Bee" is what they call her.'


def test_dialogues_that_share_a_line_have_ids_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(aloe()) + json.dumps(aloe()) + "\n" + json.dumps(aloe()))
    assert [dialogue.id for dialogue in load_dialogues(path, skip_bad=True)] == ["a:1", "a:1.2", "a:2"]


def test_labelled_turns_as_pairs(tmp_path: Path) -> None:
    first, second = load_pairs(write(tmp_path / "a.jsonl", aloe(id="d")))
    assert first == PreferencePair(
        "d/0", Persona("She keeps bees.", "Curt."), (Message("user", "Hi"),), "Hello.", "Yo!"
    )
    assert [message.content for message in second.history] == ["Hi", "Yo!", "They swarm."]
    assert (second.id, second.preferred, second.rejected) == ("d/1", "Box them.", "Aw!")


def test_prefeval(tmp_path: Path) -> None:
    talk = {str(n): {"user": f"q{n}", "assistant": f"a{n}"} for n in (1, 0, *range(2, 11))}
    item = {"preference": "I hate noise.", "question": "Where?", "persona": "A clerk", "conversation": talk}
    folder = tmp_path / "persona_driven"
    folder.mkdir()
    (folder / "travel_hotel.json").write_text(json.dumps([item, item]))
    first, second = load_dialogues(folder)
    assert first.persona == Persona("A clerk", "I hate noise.")
    assert [turn.user for turn in first.turns] == [f"q{n}" for n in range(11)], "turns go by number, not by text"
    assert first.turns[0] == Turn("q0", "a0", None, "preferred", Persona())
    assert [first.id, first.user_id, second.id] == ["travel_hotel:1", "travel_hotel:1", "travel_hotel:2"]


def test_prefeval_options(tmp_path: Path) -> None:
    item = {
        "preference": "No noise.",
        "question": "Where?",
        "classification_task_options": ["Hut", "Pub", "Bar", "Club"],
    }
    (tmp_path / "travel_hotel.json").write_text(json.dumps([item]))
    pairs = load_pairs(tmp_path).pairs
    assert [(pair.id, pair.preferred, pair.rejected, pair.kind) for pair in pairs] == [
        (f"travel_hotel:1:{n}", "Hut", wrong, "conflict") for n, wrong in enumerate(("Pub", "Bar", "Club"), 1)
    ]
    assert pairs[0].persona == Persona("", "No noise.") and pairs[0].history == (Message("user", "Where?"),)


def spc(folder: Path, talk: str) -> Path:
    path = folder / "spc.csv"
    path.write_text(f'user 1 personas,user 2 personas,Best Generated Conversation\n"I knit.\nI ski.",I fly.,"{talk}"\n')
    return path


def test_spc(tmp_path: Path) -> None:
    (dialogue,) = load_dialogues(
        spc(tmp_path, "User 1: Hi!\nUser 2: Hello!\nuser 1:  I knit.  \nUser 2: Nice: very.\nUser 1: Bye")
    )
    assert dialogue.persona == Persona("I knit. I ski.", "")
    assert dialogue.turns == (Turn("Hi!", "Hello!"), Turn("I knit.", "Nice: very."), Turn("Bye", None))


@pytest.mark.parametrize(
    ("talk", "turns", "repaired"),
    [
        ("User 2: Hey.\nUser 1: Hi!\nUser 2: Yo.", [("Hi!", "Yo.")], {"openings by User 2 left out": 1}),
        ("User 1: Hi!\nUser 1: You?\nUser 2: Yo.", [("Hi!\nYou?", "Yo.")],
         {"utterances of one speaker in a row, joined": 1}),
        ("User 1: Recipe?\nUser 2: Take:\n1 egg\n\n2 figs", [("Recipe?", "Take:\n1 egg\n2 figs")], {}),
        ("* * *\n**User 1:** Hi!\n[Later]\n*User 2*: Yo.*\n(They sleep.)\n*At home*", [("Hi!", "Yo.")],
         {"stage directions left out": 4}),
        ("They meet.\nUser 1: Hi!\nUser 2: Yo.", [("Hi!", "Yo.")], {"lines before the first speaker left out": 1}),
    ],
)  # fmt: skip
def test_spc_as_it_really_is(talk: str, turns: list[tuple[str, str]], repaired: dict[str, int], tmp_path: Path) -> None:
    loaded = load_dialogues(spc(tmp_path, talk))
    assert [(turn.user, turn.preferred) for turn in loaded.dialogues[0].turns] == turns
    assert loaded.repaired == repaired


def trl(prompt: list[str], chosen: str, rejected: str, **more: object) -> dict[str, object]:
    roles = ("user", "assistant")
    return {
        "prompt": [{"role": roles[n % 2], "content": text} for n, text in enumerate(prompt)],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    } | more


def test_trl_line_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", trl(["Hi", "Yo", "Bye"], "Bye.", "Ciao!", profile="Ann", profile_t="A."))
    (dialogue,) = load_dialogues(path)
    assert dialogue.turns == (Turn("Hi", "Yo"), Turn("Bye", "Bye.", "Ciao!", "preferred", Persona("A.")))
    (pair,) = load_pairs(path)
    assert pair.id == dialogue.id == "a:1" and [m.content for m in pair.history] == ["Hi", "Yo", "Bye"]
    assert pair.persona == Persona("Ann")


def test_trl_lines_of_one_dialogue(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        trl(["Hi"], "Hello.", "Yo!", dialogue_id="d", profile_t="x"),
        trl(["Hi", "Yo!", "How?", "Fine.", "Bye"], "Bye.", "Ciao!", dialogue_id="d"),
        trl(["Hi"], "Hello.", "Yo!", dialogue_id="e"),
    )
    first, second = load_dialogues(path)
    assert first.turns == (
        Turn("Hi", "Hello.", "Yo!", "rejected", Persona("x")),
        Turn("How?", "Fine."),
        Turn("Bye", "Bye.", "Ciao!"),
    )
    assert (first.id, second.id) == ("d", "e") and len(second.turns) == 1
    assert [pair.id for pair in load_pairs(path)] == ["d/0", "d/2", "e/0"]


def test_trl_lines_without_names_share_a_user_by_their_first_message(tmp_path: Path) -> None:
    lines = (trl(["Hi"], "a", "b"), trl(["Hi", "a", "Bye"], "c", "d"), trl(["Ho"], "a", "b"))
    users = [dialogue.user_id for dialogue in load_dialogues(write(tmp_path / "a.jsonl", *lines))]
    assert users[0] == users[1] != users[2]


def test_trl_system_message_is_left_out_and_counted(tmp_path: Path) -> None:
    line = trl(["Hi"], "Hello.", "Yo!")
    line["prompt"] = [{"role": "system", "content": "Be kind."}, *line["prompt"]]
    path = write(tmp_path / "a.jsonl", line)
    for loaded in (load_dialogues(path), load_pairs(path)):
        assert loaded.repaired == {"system messages left out": 1}
    assert load_dialogues(path).dialogues[0].turns == (Turn("Hi", "Hello.", "Yo!"),)


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        ([trl(["Hi"], "a", "b"), trl(["Ho", "a", "x"], "c", "d")], 1, "no beginning of this dialogue's longest prompt"),
        ([trl(["Hi"], "a", "b"), trl(["Hi", "?", "x"], "c", "d")], 1, "goes on with neither reply"),
        ([trl(["Hi"], "a", "b", path="rejected"), trl(["Hi", "a", "x"], "c", "d")], 1, "goes on with neither reply"),
        ([trl(["Hi"], "a", "b"), trl(["Hi"], "a", "c")], 1, "two lines for one turn"),
        ([trl(["Hi"], "a", "b", profile="x"), trl(["Hi", "a", "x"], "c", "d")], 1, "profile differs"),
        ([trl(["Hi"], "a", "b", path="up")], 1, "`path` is 'up'"),
    ],
)
def test_trl_lines_that_contradict_each_other(
    lines: list[dict[str, object]], line: int, message: str, tmp_path: Path
) -> None:
    named = [item | {"dialogue_id": "d"} for item in lines]
    path = write(tmp_path / "a.jsonl", *named, trl(["Hi"], "a", "b", dialogue_id="good"))
    with pytest.raises(DataError, match=message) as caught:
        load_dialogues(path)
    assert caught.value.line == line
    assert [dialogue.id for dialogue in load_dialogues(path, skip_bad=True)] == ["good"]


def test_trl_dialogue_that_comes_back_later_is_a_duplicate(tmp_path: Path) -> None:
    one, other = trl(["Hi"], "a", "b", dialogue_id="d"), trl(["Ho"], "a", "b", dialogue_id="e")
    with pytest.raises(DataError, match=r"a\.jsonl:3: the id 'd' occurs twice"):
        load_dialogues(write(tmp_path / "a.jsonl", one, other, one))


def test_our_lines_may_leave_out_what_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"turns": [{"user": "Hi"}]}\n\n{"profile": "", "turns": [{"user": "Ho"}]}\n')
    first, second = load_dialogues(path)
    assert first == Dialogue("mine:1", first.user_id, Persona(), (Turn("Hi"),))
    assert second.id == "mine:3" and second.user_id != first.user_id


def test_persona_pool(tmp_path: Path) -> None:
    path = tmp_path / "profile.jsonl"
    path.write_text('"Ann bakes."\n\n"Bo sails.""Cy \\"C\\" sings."\n')
    with pytest.raises(DataError, match=r"profile\.jsonl:3: more than one JSON value on the line"):
        load_personas(path)
    loaded = load_personas(path, skip_bad=True)
    assert list(loaded) == ["Ann bakes.", "Bo sails.", 'Cy "C" sings.']
    assert loaded.repaired == {"more than one JSON value on the line": 1} and loaded.format == "personas"


@pytest.mark.parametrize(("line", "message"), [("{}", "`text` is an object where a text belongs"), ('""', "is empty")])
def test_persona_pool_with_a_bad_line(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.jsonl"
    path.write_text(f'"Ann bakes."\n{line}\n')
    with pytest.raises(DataError, match=message):
        load_personas(path)
    loaded = load_personas(path, skip_bad=True)
    assert list(loaded) == ["Ann bakes."] and [error.line for error in loaded.skipped] == [2]
