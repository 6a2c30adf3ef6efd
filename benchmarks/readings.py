"""What blind readers said of methods: `python -m benchmarks.readings [PART] [JUDGE]`.

PART of the readings is train, valid, test (unless another is named), rl, rl-2, valid-2 or table2. r_w of every pair of
methods, seed by seed and pooled over seeds, also of those states alone where a reply is the shorter or the longer one
in words, and the mean sense of each, from the readings that come with the package. The first table of docs/results.md
is from `test`: four tests, told apart by the ids of their states. No model is needed, unless a registered JUDGE is to
say r_w of the same replies in readers' place, and how often it decides a pair of two methods as they did.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from pamdp.calls_config import JudgeConfig
from pamdp.data.bundled import load_sample_readings
from pamdp.data.readings import ReadState, read_by
from pamdp.evaluation.significance import cluster_bootstrap
from pamdp.judges.base import Case, Judge
from pamdp.judges.graders import make_judge
from pamdp.models.embedded import load_backbone

Pair = tuple[str, str]
Said = list[tuple[float, str]]
"""Wins less losses of the first of two methods, from -1 to 1, and whose state it is."""
Decide = Callable[[ReadState], Sequence[tuple[str, str, float]]]
"""Of a state every two letters, and how far the first is preferred, from 0 to 1."""


def read_in(state: ReadState) -> str:
    """In which of several tests a state was read: what its id says behind a comma."""
    return state.id.partition(", ")[2] or "test 1"


def decided_by(judge: Judge) -> Decide:
    """What a judge says of the pairs that readers compared."""

    def decide(state: ReadState) -> list[tuple[str, str, float]]:
        text = {letter: reply.text for letter, reply in state.replies.items()}
        pairs = [(a, b) for a, b, _ in state.pairs()]
        found = judge.judge([Case(state.persona, state.history, text[a], text[b]) for a, b in pairs])
        return [(a, b, (1 + v.p_a - v.p_b) / 2) for (a, b), v in zip(pairs, found, strict=True)]

    return decide


def agreed(theirs: Mapping[Pair, Said], ours: Mapping[Pair, Said]) -> dict[Pair, Said]:
    """How often OURS decide as THEIRS what those decided; a tie is half."""
    return {
        pair: [
            ((1 + (x > 0) - (x < 0)) / 2 if y > 0 else (1 + (x < 0) - (x > 0)) / 2, user)
            for (y, user), (x, _) in zip(said, ours[pair], strict=True)
            if y
        ]
        for pair, said in theirs.items()
    }


def more_words(one: str, other: str) -> int:
    """By how many words one reply is longer than another."""
    return len(one.split()) - len(other.split())


def compared(
    states: Sequence[ReadState],
    decide: Decide = ReadState.pairs,
    among: Callable[[str, str], bool] = lambda one, other: True,
) -> dict[Pair, Said]:
    """What was said of every two methods at every state that has replies of both; the same words are a tie.

    Args:
      among: of which two replies.
    """
    found: dict[Pair, Said] = defaultdict(list)
    for state in states:
        pairs = decide(state)
        shares = {(a, b): x for a, b, x in pairs} | {(b, a): 1 - x for a, b, x in pairs}
        letters = {name: letter for letter, reply in state.replies.items() for name in reply.by}
        for pair in combinations(sorted(letters), 2):
            a, b = (letters[name] for name in pair)
            share = 0.5 if a == b else shares.get((a, b))
            if share is not None and among(state.replies[a].text, state.replies[b].text):
                found[pair].append((2 * share - 1, state.user_id))
    return found


def pooled(found: Mapping[Pair, Said]) -> dict[Pair, Said]:
    """The same over all seeds of methods that have several; two such methods are compared seed by seed."""
    names = {name for pair in found for name in pair}
    seeded = {name.partition(", seed ")[0] for name in names if ", seed " in name}
    out: dict[Pair, Said] = defaultdict(list)
    for pair, said in found.items():
        (one, first), (other, second) = (name.partition(", seed ")[::2] for name in pair)
        if one != other and (first == second if {one, other} <= seeded else seeded & {one, other}):
            out[one, other] += said
    return out


def main(split: str, name: str | None = None) -> None:
    """Print all of it."""
    states = load_sample_readings(split)  # type: ignore[arg-type]  # what is no split is refused
    decide = None if name is None else decided_by(make_judge(JudgeConfig(model=name), load_backbone))
    for test in sorted({read_in(state) for state in states}):
        own = [state for state in states if read_in(state) == test]
        print(f"\n{test}: {len(own)} states, {read_by(own)}")
        found = compared(own)
        if decide is not None:
            theirs, found = found, compared(own, decide)
            print(f"  by {name} in their place")
            right = agreed(theirs, found)
            shown(", decided as readers did", pooled(right) or right, "pairs")
        shown("", found)
        shown(", all seeds", pooled(found))
        if decide is not None:
            continue
        for what, among in (
            (", the shorter reply", lambda one, other: more_words(one, other) < 0),
            (", the longer reply", lambda one, other: more_words(one, other) > 0),
        ):
            part = compared(own, among=among)
            shown(what, pooled(part) or part)
        grades: dict[str, list[float]] = defaultdict(list)
        for state in own:
            for letter, reply in state.replies.items():
                for name in reply.by:
                    if (grade := state.grade("sense", letter)) is not None:
                        grades[name].append(grade)
        for name, values in sorted(grades.items()):
            print(f"  {name}: mean sense {sum(values) / len(values):.2f} of {len(values)} replies")


def shown(what: str, table: Mapping[Pair, Said], unit: str = "states") -> None:
    """Print the mean of every pair of methods."""
    for (one, other), said in sorted(table.items()):
        if said:
            r = cluster_bootstrap([x for x, _ in said], [user for _, user in said])
            print(f"  {one} against {other}{what}: {r.value:+.3f} ({r.low:+.3f} .. {r.high:+.3f}), {r.n} {unit}")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["test"]))
