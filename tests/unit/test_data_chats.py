"""Chats as people keep them: what becomes of every message, and that nothing is merged or left out without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pamdp.data import load_dialogues, load_pairs
from pamdp.data.check import check
from pamdp.errors import DataError
from pamdp.types import Dialogue, Persona, Turn

SYSTEM, TOOL = "system messages left out", "tool messages left out"
OPENING, CALLS = "openings by the assistant left out", "tool calls left out"
JOINED, PARTS = "messages of one speaker in a row joined", "parts of one message joined"
OTHER_PARTS = "parts of messages that are no text left out"


def write(folder: Path, *records: object) -> Path:
    path = folder / "talks.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def chat(*said: tuple[str, object], **more: object) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in said], **more}


USER, REPLY = ("user", "Dinner?"), ("assistant", "Soup.")
ASKED = {"role": "user", "content": "Dinner?"}
PLAIN = (Turn("Dinner?", "Soup."),)


@pytest.mark.parametrize(
    ("record", "turns", "repaired"),
    [
        (chat(USER, REPLY), PLAIN, {}),
        (chat(USER, REPLY, ("user", " Thanks ")), (*PLAIN, Turn("Thanks")), {}),
        (chat(("system", "Be kind."), USER, REPLY), PLAIN, {SYSTEM: 1}),
        (chat(("developer", ["x"]), USER, REPLY, ("system", ""), ("user", "Bye")), (*PLAIN, Turn("Bye")), {SYSTEM: 2}),
        (chat(("assistant", "Welcome!"), ("assistant", "Well?"), USER, REPLY), PLAIN, {OPENING: 2}),
        (chat(("system", "x"), ("assistant", "Welcome!"), USER, REPLY), PLAIN, {SYSTEM: 1, OPENING: 1}),
        (chat(USER, ("user", "Hello?"), REPLY), (Turn("Dinner?\nHello?", "Soup."),), {JOINED: 1}),
        (chat(USER, REPLY, ("assistant", "Hot."), ("assistant", "Or not.")), (Turn("Dinner?", "Soup.\nHot.\nOr not."),),
         {JOINED: 2}),
        (chat(USER, ("assistant", "I look."), ("tool", "42"), REPLY), (Turn("Dinner?", "I look.\nSoup."),),
         {TOOL: 1, JOINED: 1}),
        (chat(USER, ("tool", {"any": "thing"}), REPLY), PLAIN, {TOOL: 1}),
        (chat(("user", [{"type": "text", "text": "Dinner?"}]), ("assistant", ["Soup."])), PLAIN, {}),
        (chat(("user", [{"type": "text", "text": "Din"}, {"type": "text", "text": "ner"}]), REPLY),
         (Turn("Din\nner", "Soup."),), {PARTS: 1}),
        (chat(("user", [{"type": "image_url", "image_url": "x"}, {"type": "text", "text": "Dinner?"}, 3]), REPLY),
         PLAIN,
         {OTHER_PARTS: 1}),
        ({"messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [{}]},
                       {"role": "tool", "content": "42"}, {"role": "assistant", "content": "Soup."}]},
         PLAIN, {CALLS: 1, TOOL: 1}),
        ({"messages": [ASKED, {"role": "assistant", "content": "Soup.", "tool_calls": [{}]}]},
         PLAIN, {CALLS: 1}),
        ({"conversation": [{"role": "User", "content": "Dinner?"}, {"role": "Bot", "content": "Soup."}]}, PLAIN, {}),
        ({"conversations": [{"role": "user", "content": "Dinner?"}, {"role": "model", "content": "Soup."}]}, PLAIN, {}),
        ({"conversations": [{"from": "system", "value": "x"}, {"from": "human", "value": "Dinner?"},
                            {"from": "function_call", "value": "{}"}, {"from": "observation", "value": "[]"},
                            {"from": "gpt", "value": "Soup."}]}, PLAIN, {SYSTEM: 1, TOOL: 2}),
        ({"instruction": "Dinner?", "output": "Soup."}, PLAIN, {}),
        ({"instruction": "Dinner?", "input": "", "output": "Soup.", "history": None, "system": ""}, PLAIN, {}),
        ({"instruction": "Translate", "input": "Suppe", "output": "Soup", "system": "Be kind.",
          "history": [["Dinner?", "Soup."], ["Hot?", "Yes."]]},
         (*PLAIN, Turn("Hot?", "Yes."), Turn("Translate\nSuppe", "Soup")),
         {SYSTEM: 1, "inputs joined to their instruction": 1}),
    ],
)  # fmt: skip
def test_what_a_chat_becomes(
    record: dict[str, object], turns: tuple[Turn, ...], repaired: dict[str, int], tmp_path: Path
) -> None:
    loaded = load_dialogues(write(tmp_path, record))
    (dialogue,) = loaded
    assert dialogue.turns == turns and loaded.repaired == repaired
    report = check(write(tmp_path, record))
    assert report.ok and report.repaired == repaired and report.format == loaded.format


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (chat(), "`messages` is a list of 0 where 1 or more belong"),
        (chat(("assistant", "Welcome!")), "there is nothing that the user says"),
        (chat(("system", "Be kind.")), "there is nothing that the user says"),
        (chat(("oracle", "Hm")), "`messages`, item 1, `role` is 'oracle' .write user, assistant, system, tool"),
        (chat(USER, (None, "Hm")), "`messages`, item 2, `role` is missing"),
        (chat(USER, ("assistant", "")), "`messages`, item 2, `content` is empty"),
        (chat(USER, ("assistant", None)), "`messages`, item 2, `content` is missing"),
        (chat(("user", [{"type": "image_url", "image_url": "x"}])), "`messages`, item 1, `content` is empty"),
        (chat(("user", {"text": "Hi"})), "`messages`, item 1, `content` is an object where a text belongs"),
        (chat(("user", 3)), "`messages`, item 1, `content` is a number where a text belongs"),
        ({"messages": ["Hi"]}, "`messages`, item 1 is a text where a JSON object belongs"),
        ({"messages": "Hi"}, "`messages` is a text where a list belongs"),
        (chat(USER, REPLY, profile=["x"]), "`profile` is a list where a text belongs"),
        (chat(USER, REPLY, id="good"), "the id 'good' occurs twice"),
    ],
)
def test_a_bad_chat_is_one_line_or_a_counted_skip(record: dict[str, object], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, chat(USER, REPLY, id="good"), record, chat(USER, REPLY))
    with pytest.raises(DataError, match=message) as caught:
        load_dialogues(path)
    assert str(caught.value).startswith(f"{path}:2: ") and "\n" not in str(caught.value) and caught.value.fix
    loaded = load_dialogues(path, skip_bad=True)
    assert len(loaded) == 2 and [error.line for error in loaded.skipped] == [2] and not loaded.repaired
    assert len(check(path).problems) == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"instruction": "", "output": "x"}, "`instruction` is empty"),
        ({"instruction": "x", "output": 3}, "`output` is a number where a text belongs"),
        ({"instruction": "x", "output": "y", "history": [["Hi"]]}, "`history`, item 1 is a list of 1 where 2 or more"),
        ({"instruction": "x", "output": "y", "history": [["a", "b", "c"]]}, "`history`, item 1 is a list of 3 where 2"),
        ({"instruction": "x", "output": "y", "history": "Hi"}, "`history` is a text where a list belongs"),
    ],
)
def test_a_bad_instruction_is_one_line(record: dict[str, object], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"instruction": "Hi", "output": "Hello"}, record)
    with pytest.raises(DataError, match=f"talks.jsonl:2: {message}"):
        load_dialogues(path)


def test_a_person_may_stand_beside_a_chat_and_need_not(tmp_path: Path) -> None:
    known = chat(USER, REPLY, profile="Ann bakes.", personality="Curt.", id=7, user_id=12)
    path = write(tmp_path, known, chat(USER, REPLY), {"messages": known["messages"], "profile": None})
    loaded = load_dialogues(path)
    assert loaded.dialogues[0] == Dialogue("7", "12", Persona("Ann bakes.", "Curt."), PLAIN)
    assert [d.persona for d in loaded.dialogues[1:]] == [Persona(), Persona()]
    assert len({d.user_id for d in loaded}) == 3, "without a person every dialogue is a user of its own"
    (note,) = check(path).notes
    assert note.startswith("2 of 3 have no profile and no personality: no judge can tell there whether a reply fits")


def test_a_person_that_is_inferred_is_known(tmp_path: Path) -> None:
    turn = {"user": "Hi", "preferred": "Hello", "inferred": {"profile": "Bakes."}}
    assert check(write(tmp_path, {"turns": [turn]})).notes == ()
    assert len(check(write(tmp_path, {"turns": [turn | {"inferred": {}}]})).notes) == 1


@pytest.mark.parametrize("first", [{"conversations": []}, {"conversations": "cut"}, {"messages": []}, {"x": 1}])
def test_a_bad_first_record_does_not_hide_the_layout(first: dict[str, object], tmp_path: Path) -> None:
    said = [{"from": "human", "value": "Dinner?"}, {"from": "gpt", "value": "Soup."}]
    loaded = load_dialogues(write(tmp_path, first, {"conversations": said}), skip_bad=True)
    assert loaded.format == "sharegpt" and [error.line for error in loaded.skipped] == [1]


def test_chats_hold_no_preferences(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"layout 'messages', which holds no preference pairs \(load_dialogues reads"):
        load_pairs(write(tmp_path, chat(USER, REPLY)))


def test_prompts_of_preferences_may_come_in_parts(tmp_path: Path) -> None:
    part = [{"type": "text", "text": "Dinner?"}]
    reply = {"role": "assistant", "content": [{"type": "text", "text": "So"}, {"type": "text", "text": "up"}]}
    line = {"prompt": [{"role": "user", "content": part}], "chosen": [reply]}
    line["rejected"] = [{"role": "assistant", "content": "No."}]
    loaded = load_pairs(write(tmp_path, line))
    assert [pair.preferred for pair in loaded] == ["So\nup"] and loaded.repaired == {PARTS: 1}
