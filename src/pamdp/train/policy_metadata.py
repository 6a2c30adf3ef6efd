"""What stands beside a stored policy's weights: the model it belongs to, its settings, and whom it learned from.

Owns `config.json` of a policy's folder, and the one rule that nobody who was learned from may test. Knows nothing of
weights (factory.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pamdp.config import Config
from pamdp.data import load_sample
from pamdp.errors import DataError, RunError
from pamdp.nested import moved
from pamdp.stored import read_record
from pamdp.types import Dialogue

FILE = "config.json"
NAMED = 3
"""Users that a complaint names; the rest it counts."""


class PolicyMetadata(BaseModel):
    """What is stored beside the weights.

    Attributes:
      base_model, revision: the backbone that the policy was trained on.
      system: the instruction that stands before every history.
      config: the settings of the training that ended here.
      users: ids of the users whose dialogues that training learned from, sorted; None: stored before they were noted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    base_model: str
    revision: str
    system: str
    config: Config
    users: tuple[str, ...] | None = None


def read_metadata(folder: Path) -> PolicyMetadata:
    """What is stored in a policy's folder; a RunError where nothing is, or it is damaged or of another version."""
    path = folder / FILE
    if not path.is_file():
        raise RunError(f"no policy in {folder}; train one with `pamdp train bc`")
    try:
        return read_record(path, PolicyMetadata, change=_under_new_names)
    except DataError as error:
        what = f"is damaged or of another version of pamdp ({error.what})"
        raise RunError(f"{path} {what}; copy it back or train the policy again") from error


def _under_new_names(text: str) -> str:
    """The record with settings that have had other names under those of today."""
    try:
        record = json.loads(text)
    except ValueError:
        return text  # said of the file when it is read
    if isinstance(record, dict) and isinstance(record.get("config"), dict):
        record["config"] = moved(record["config"], Config.renamed)
    return json.dumps(record)


def require_unseen(test: Sequence[Dialogue], folders: Sequence[Path]) -> None:
    """`require_unseen_by` the policies in FOLDERS."""
    require_unseen_by(test, {f"the policy in {folder}": learned_from(read_metadata(folder)) for folder in folders})


def require_unseen_by(test: Sequence[Dialogue], learned: Mapping[str, Set[str]]) -> None:
    """A RunError for test users that a policy LEARNED from, by its name: rates on them say nothing of new people."""
    testing = {dialogue.user_id for dialogue in test}
    for name, users in learned.items():
        if known := sorted(testing & users):
            more = f" and {len(known) - NAMED} more" if len(known) > NAMED else ""
            raise RunError(
                f"{name} learned from {len(known)} of {len(testing)} test users "
                f"({', '.join(known[:NAMED])}{more}); split as it did (data.path, data.split_seed, data.test_share, "
                "data.folds), or train it anew on this split"
            )


def learned_from(about: PolicyMetadata) -> set[str]:
    """Ids of the users whom a stored policy learned from, as far as they were noted."""
    if about.users is not None:
        return set(about.users)
    # Stored before users were noted: of the sample, which brings its split, they are known all the same.
    sample = about.config.data.path == "sample"
    return {dialogue.user_id for dialogue in load_sample("train").dialogues} if sample else set()
