"""Chats out of single replies: which histories go on in others.

Owns the order of replies in chats; what a client's system message says is no part of them. Knows nothing of stores. A
reply is stored with its whole history, so a chat is what its longest history says; what was asked again or cut short by
a client stands as a chat of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pamdp.serve.served import ServedReply
from pamdp.types import History, Message


def beginnings(history: History) -> Iterator[History]:
    """The histories that a history went through, shortest first, itself included."""
    return (history[: end + 1] for end in range(0, len(history), 2))


def chats(replies: Sequence[ServedReply]) -> list[History]:
    """The histories of some replies that no other goes on from, in the order of their first replies."""
    histories = dict.fromkeys(reply.spoken for reply in replies)
    passed = {earlier for history in histories for earlier in [*beginnings(history)][:-1]}
    return [history for history in histories if history not in passed]


def all_said(replies: Sequence[ServedReply], most: int) -> History:
    """The last MOST messages or so of a user's chats as one history, which begins and ends with the user's."""
    last = {reply.spoken: reply.text for reply in replies}
    joined: list[Message] = []
    for history in chats(replies):
        joined += [*history, Message("assistant", last[history])]
    return tuple(joined[-(most // 2) * 2 : -1])
