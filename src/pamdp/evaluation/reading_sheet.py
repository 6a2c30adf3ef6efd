"""The sheet on which blind readers grade replies, and the key that says who wrote which.

Owns which states are read, what a reader is shown and asked, and the files of both. A sheet is made of texts alone: it
is the same sheet whoever wrote which reply. Knows nothing of verdicts.
"""

from __future__ import annotations

import hashlib
import json
import random
import string
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from pamdp.errors import ConfigError, DataError
from pamdp.evaluation.records import State, grouped
from pamdp.files import Json, json_line, new_folder, write_json
from pamdp.models.recorded import Replies
from pamdp.seeds import seed_of
from pamdp.stored import read_record, read_text
from pamdp.types import Dialogue

WORDS = tomllib.loads((Path(__file__).parent / "reading.toml").read_text(encoding="utf-8"))
QUESTIONS: dict[str, Any] = WORDS["questions"]
"""What is asked of each reply: name -> `asked`, and `grades`: word, meaning and examples of each, from grade 0."""


@dataclass(frozen=True, slots=True)
class SheetState:
    """A state, and the letter of each method's reply to it; replies of the same words share one."""

    state: State
    letters: dict[str, str]

    @property
    def pairs(self) -> list[str]:
        """`A-B` and so on: what is asked. All pairs: a part of them would show what the others are compared with."""
        return ["-".join(pair) for pair in combinations(sorted(set(self.letters.values())), 2)]


@dataclass(frozen=True, slots=True)
class Key:
    """What readers must not see: the place of each state, and the (method, baseline) PAIRS that verdicts count for."""

    files: dict[str, str]  # sha256 of every file of the sheet
    pairs: tuple[tuple[str, str], ...]
    states: dict[str, SheetState]
    seed: int
    sha256: str = ""

    def signed(self) -> Key:
        """The same key with the sha256 that belongs to it."""
        return replace(self, sha256=_digest(json.dumps(asdict(replace(self, sha256="")), sort_keys=True)))


def check_sheet(folder: Path, key_file: Path, methods: Collection[str], known: Collection[str]) -> None:
    """Refuse, by a ConfigError, methods that are not KNOWN or too many, and places that are taken or not apart."""
    if unknown := [method for method in methods if method not in known]:
        raise ConfigError(f"no replies by {unknown[0]!r}; there are: {', '.join(known)}")
    if not 1 < len(methods) <= len(string.ascii_uppercase):
        raise ConfigError(f"a sheet needs 2 to 26 methods, not {len(methods)}")
    if taken := [path for path in (folder, key_file) if path.exists()]:
        raise ConfigError(f"{taken[0]} is there already, and what may have been read is not replaced; give a new name")
    if key_file.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"the key {key_file} must lie outside of {folder}, which readers are given")


def write_sheet(
    folder: Path,
    key_file: Path,
    dialogues: Sequence[Dialogue],
    replies: Mapping[str, Replies],
    pairs: Sequence[tuple[str, str]],
    *,
    states: int | None = None,
    seed: int = 0,
    messages: int = 7,
) -> Key:
    """Write a new sheet into FOLDER, whole or not at all, and its key into KEY_FILE, which lies elsewhere.

    Args:
      replies: method -> its replies; a state enters where every method of PAIRS has one.
      states: how many states, drawn from all users in turn; all of them without.
      messages: how many of the last messages of a history are shown.

    Raises:
      ConfigError: as `check_sheet`, or too many states or no messages.
    """
    methods = list(dict.fromkeys(method for pair in pairs for method in pair))
    check_sheet(folder, key_file, methods, replies)
    found = [(d, t) for d in dialogues for t in range(len(d.turns)) if all((d.id, t) in replies[m] for m in methods)]
    if not found or (states is not None and not 1 <= states <= len(found)):
        raise ConfigError(f"{states or 'some'} states asked for, and {len(found)} have a reply by every method")
    if messages < 1:
        raise ConfigError(f"a sheet needs 1 or more messages, not {messages}")
    places, lines = dict[str, SheetState](), list[dict[str, Json]]()
    for d, t in _draw(found, seed)[:states]:
        own = {method: replies[method][d.id, t] for method in methods}
        texts, letters = _lettered(own, seed_of("letters", seed, d.id, t))
        place, history = SheetState((d.user_id, d.id, t), letters), d.history(t)
        line: dict[str, Json] = {
            "persona": d.persona.text, "earlier_messages": max(0, len(history) - messages),
            "messages": [{"from": message.role, "text": message.content} for message in history[-messages:]],
            "replies": texts, "pairs": place.pairs,
        }  # fmt: skip
        lines.append({"state": _digest(json.dumps([d.id, t, line]))[:8], **line})  # another sheet has none of these
        places[str(lines[-1]["state"])] = place
    files = _files(lines)
    key = Key({name: _digest(text) for name, text in files.items()}, tuple(pairs), places, seed).signed()
    key_file.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder) as part:
        for name, text in files.items():
            (part / name).write_text(text, encoding="utf-8")
        write_json(key_file, asdict(key))
    return key


def read_key(key_file: Path, folder: Path) -> Key:
    """The key of the sheet in FOLDER; a DataError where it is no key or of another sheet, or one was changed."""
    changed, fix = "was changed after it was written", "take the key as it was written with the sheet"
    key = read_record(key_file, Key, fix)
    if key != key.signed():
        raise DataError(changed, key_file, fix=fix)
    for name, digest in key.files.items():
        if _digest(read_text(folder / name)) != digest:
            what = f"{changed}, or is of another sheet than {key_file}"
            raise DataError(what, folder / name, fix="take what readers were given")
    return key


def _draw(states: Sequence[tuple[Dialogue, int]], seed: int) -> list[tuple[Dialogue, int]]:
    """All states, shuffled: one of every user, then a second one, so that any beginning has as many users as can be."""
    rng, users = random.Random(seed_of("states", seed)), grouped(states, lambda x: x[0].user_id or x[0].id)
    shuffled = [rng.sample(own, len(own)) for own in users.values()]
    rng.shuffle(shuffled)
    return [state for row in zip_longest(*shuffled) for state in row if state is not None]


def _lettered(replies: Mapping[str, str], seed: int) -> tuple[dict[str, str], dict[str, str]]:
    """Letter -> text, and method -> letter. Letters depend on the texts alone; texts of the same words share one."""
    texts, words = dict[str, str](), {method: " ".join(text.split()) for method, text in replies.items()}
    for method, text in replies.items():
        texts[words[method]] = min(text.strip(), texts.get(words[method], text.strip()))
    order = random.Random(seed).sample(sorted(texts), len(texts))
    letters = dict(zip(order, string.ascii_uppercase, strict=False))
    return {letter: texts[key] for key, letter in letters.items()}, {m: letters[words[m]] for m in replies}


def _files(lines: Sequence[Mapping[str, Json]]) -> dict[str, str]:
    sheet = "".join(json_line(line) for line in lines)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    given = {"states": lines, "questions": QUESTIONS, "digest": _digest(sheet)}
    page, instructions = (environment.get_template(f"reading.{end}.j2").render(given) for end in ("html", "md"))
    return {"sheet.jsonl": sheet, "sheet.html": page, "instructions.md": instructions}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
