"""A column of a table: one backbone on one data set, its splits, and where its results are kept.

Owns folders, file names and the users of each part. Knows nothing of methods and judges. A cell's folder holds what was
computed, for whichever table:

    splits.json                            users of each part, by seed
    budgets.json                           what each method was allowed to use
    inapplicable.json                      methods that cannot learn from these data, and why
    seed-0/NAME/, seed-0/NAME.jsonl        a method's run, and its replies
    judged/JUDGE/NAME-BASELINE.seed-0.jsonl
    scored/NAME/NAME.seed-0.jsonl          what a language model said of single replies
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pamdp.config import DataConfig
from pamdp.errors import DataError, RunError
from pamdp.files import Json, json_line, read_json_lines, write_atomic
from pamdp.models.chat import ChatEncoder
from pamdp.models.policy import path
from pamdp.models.recorded import Key, Replies
from pamdp.prompts.render import load
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.tables import Column, Table
from pamdp.train.factory import Split, load_split
from pamdp.types import Dialogue


@dataclass(frozen=True, slots=True)
class Cell:
    """One backbone on one data set."""

    column: Column
    model: str
    data: DataConfig
    folder: Path

    @property
    def source(self) -> str:
        """What the data are called where people read it: the sample stands in for ALOE, and is not ALOE."""
        return "sample" if self.column == "ALOE" and self.data.path == "sample" else self.column

    @property
    def title(self) -> str:
        """For headings."""
        return f"{self.source}, {self.model}"

    def seeds(self, seeded: bool, seeds: Sequence[int]) -> tuple[int, ...]:
        """The seeds that a method is run with: all of them, unless neither its training nor its test set has one."""
        return tuple(seeds) if seeded or self.data.folds else tuple(seeds[:1])

    def inapplicable(self) -> dict[str, str]:
        """Methods that cannot learn from these data, with the reason.

        Raises:
          RunError: the file is damaged.
        """
        file = self.folder / "inapplicable.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            return {str(name): str(reason) for name, reason in found.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise RunError(f"{file} is damaged: {error!r}; run the same command without --render") from error

    def root(self, seed: int) -> Path:
        """Folder of all runs of one seed."""
        return self.folder / f"seed-{seed}"

    def replies(self, method: str, seed: int) -> Path:
        """A method's replies; the file is there when the method is done."""
        return self.root(seed) / f"{slug(method)}.jsonl"

    def scored(self, scorer: str, method: str, seed: int) -> Path:
        """A scorer's answers on a method's replies."""
        return self.folder / "scored" / slug(scorer) / f"{slug(method)}.seed-{seed}.jsonl"

    def judged(self, judge: str, method: str, baseline: str, seed: int) -> Path:
        """The judgements of one comparison."""
        return self.folder / "judged" / slug(judge) / f"{slug(method)}-{slug(baseline)}.seed-{seed}.jsonl"


def cells_of(config: ReproduceConfig, table: Table, run: Path) -> list[Cell]:
    """The cells of a table: its columns that have data, for every backbone.

    Raises:
      DataError: no column has data.
    """
    sources: dict[Column, DataConfig] = {"ALOE": config.aloe, "PrefEval": config.prefeval}
    found = [
        Cell(column, model, sources[column], run / f"{column}-{slug(model)}")
        for column in table.columns
        if sources[column].path
        for model in config.models
    ]
    if not found:
        raise DataError(f"{table.name} has no data", fix="set aloe.path or prefeval.path")
    return found


def split_of(cell: Cell, config: ReproduceConfig, seed: int, chat: ChatEncoder) -> Split:
    """Training and test dialogues of one seed, every one cut where its history would outgrow the context.

    Users are split once for all seeds; folds over topics turn with the seed.
    """
    whole = load_split(cell.data.model_copy(update={"split_seed": seed if cell.data.folds else 0}))
    limit = config.clone.max_context
    return replace(whole, train=_within(whole.train, chat, limit), test=_within(whole.test, chat, limit))


def _within(dialogues: Sequence[Dialogue], chat: ChatEncoder, limit: int) -> tuple[Dialogue, ...]:
    """Dialogues without the turns whose history is too long, measured under the longest instruction of any method."""
    cut = []
    for dialogue in dialogues:
        fit = sum(head <= limit for head in chat.history(path(dialogue), load("assistant_infer")).heads)
        if fit:
            cut.append(replace(dialogue, turns=dialogue.turns[:fit]))
    if not cut:
        raise DataError(f"no history fits into {limit} tokens", fix="raise clone.max_context")
    return tuple(cut)


def users_of(split: Split) -> dict[str, Json]:
    """What a run records of a split."""
    parts = {"train": split.train, "test": split.test}
    users: dict[str, Json] = {name: sorted({d.user_id for d in part}) for name, part in parts.items()}
    turns = {f"{name}_turns": sum(len(d.turns) for d in part) for name, part in parts.items()}
    left_out = {"skipped": split.skipped, "repaired": split.repaired} if split.skipped or split.repaired else {}
    return {**users, **turns, **left_out, "sha256": split.sha256}


def write_replies_file(file: Path, dialogues: Sequence[Dialogue], replies: Replies, nll: Mapping[Key, float]) -> None:
    """Store the replies to every state, whole.

    Raises:
      RunError: the method left a state without a reply.
    """
    lines = []
    for dialogue in dialogues:
        for t in range(len(dialogue.turns)):
            if (dialogue.id, t) not in replies:
                raise RunError(f"{file.stem} wrote no reply to turn {t + 1} of dialogue {dialogue.id}")
            place: dict[str, Json] = {"user": dialogue.user_id, "dialogue": dialogue.id, "turn": t}
            reply = replies[dialogue.id, t]
            lines.append(json_line({**place, "reply": reply, "reference_nll": nll.get((dialogue.id, t))}))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, "".join(lines))


@dataclass(frozen=True, slots=True)
class StoredReply:
    """One stored reply; `nll` is that of the data's preferred reply to the same state, if it is known."""

    user: str
    dialogue: str
    turn: int
    text: str
    nll: float | None


def read_replies_file(file: Path) -> list[StoredReply]:
    """What `write_replies_file` wrote.

    Raises:
      RunError: the file is missing, or a line is something else.
    """
    if not file.is_file():
        raise RunError(f"no replies in {file}; run the same command without --render")
    out = []
    for row in read_json_lines(file):
        user, dialogue, turn, text = row.get("user"), row.get("dialogue"), row.get("turn"), row.get("reply")
        nll = row.get("reference_nll")
        if not (
            isinstance(user, str) and isinstance(dialogue, str) and isinstance(turn, int) and isinstance(text, str)
        ):
            raise RunError(f"{file}: a line is no reply; delete the file to have it written again")
        out.append(StoredReply(user, dialogue, turn, text, float(nll) if isinstance(nll, (int, float)) else None))
    return out


def slug(name: str) -> str:
    """A name as a file name."""
    return re.sub(r"[^\w.]+", "-", name).strip("-")
