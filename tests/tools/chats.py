"""A few dialogues for tests of models, with accents, emoji, repeated sentences and template words in them."""

from __future__ import annotations

from pamdp.types import Message

SYSTEM = "You are a helpful assistant."


def chat(*texts: str) -> tuple[Message, ...]:
    """Messages by turns: user, assistant, user, ..."""
    return tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts))


NURSE = chat(
    "I am a nurse and I work nights. What should I cook?",
    "A soup in the evening.",
    "Simple.  I like it when things are simple 🙂",
    "Then tea, and bread.",
    "What about émincé?",
)
ECHO = chat("tea", "tea", "tea", "user", "assistant")
LONE = chat("How do you like your tea?")
CHATS = (NURSE, ECHO, LONE)
