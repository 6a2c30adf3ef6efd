"""States that blind readers read, made of two replies and which of them was preferred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from pamdp.data.readings import Answers, Grades, ReadReply, ReadState
from pamdp.types import Message

FOOD = ("soup", "bread", "milk", "honey", "salt", "rice", "eggs", "fish")


def read_state(
    name: str,
    replies: Sequence[str],
    prefer: Sequence[Mapping[str, str]] = (),
    grades: Sequence[Grades] = (),
    messages: Sequence[str] = ("Tea?",),
    by: Sequence[Sequence[str]] = (),
    user: str = "",
) -> ReadState:
    """Replies by letters A, B, ...; PREFER and GRADES hold what each reader said."""
    history = tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(messages))
    authors = by or [()] * len(replies)
    said = [*prefer, *[{}] * (len(grades) - len(prefer))], [*grades, *[{}] * (len(prefer) - len(grades))]
    return ReadState(
        id=name, user_id=user or f"user {name}", profile=f"Keeps goat {name}.", personality="Dry.", history=history,
        replies={
            letter: ReadReply(text=text, by=tuple(who))
            for letter, text, who in zip(ascii_uppercase[: len(replies)], replies, authors, strict=True)
        },
        readings=tuple(
            Answers(reader=f"reader {i}", kind="person", prefer=dict(pairs), grades=own)
            for i, (pairs, own) in enumerate(zip(*said, strict=True))
        ),
    )  # fmt: skip


def of_two_kinds(liked: str, other: str, grades: tuple[Grades, ...] = ()) -> list[ReadState]:
    """States whose reader prefers a reply of one kind, which stands first in every second state.

    LIKED and OTHER hold {food}; GRADES are of the letters L, the reply that is liked, and O.
    """
    states = []
    for i, food in enumerate(FOOD):
        texts = [liked.format(food=food), other.format(food=food)]
        letters = {"L": "AB"[i % 2], "O": "BA"[i % 2]}
        own = [{letters[key]: dict(given) for key, given in grade.items()} for grade in grades]
        prefer = [{"A-B": letters["L"]}]
        states.append(read_state(str(i), texts[:: -1 if i % 2 else 1], prefer, own, (f"Hello {i}?",)))
    return states
