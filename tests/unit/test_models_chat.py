"""The tokens of h_t are a prefix of those of h_{t+1}, and spans point at what was said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamdp.errors import ModelError
from pamdp.models.chat import ChatEncoder
from pamdp.types import Message
from tests.tools.chats import CHATS, NURSE, SYSTEM, chat
from tests.tools.tiny import make_tiny_tokenizer

ENCODER = ChatEncoder(make_tiny_tokenizer())
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)


@pytest.mark.parametrize("messages", CHATS)
def test_every_history_is_a_prefix_of_the_next(messages: tuple[Message, ...]) -> None:
    whole = ENCODER.history(messages, SYSTEM)
    for t, head in enumerate(whole.heads):
        part = ENCODER.history(messages[: 2 * t + 1], SYSTEM)
        assert part.ids == whole.ids[:head]
        assert part.heads == whole.heads[: t + 1]
        assert part.users == whole.users[: t + 1]


@pytest.mark.parametrize("messages", CHATS)
def test_user_spans_hold_the_users_words_and_little_else(messages: tuple[Message, ...]) -> None:
    encoded = ENCODER.history(messages, SYSTEM)
    said = [m.content for m in messages if m.role == "user"]
    found = [ENCODER.tokenizer.decode(encoded.ids[a:b]) for a, b in encoded.users]
    assert found == said
    assert all(ENCODER.tokenizer.decode(encoded.ids[:a]).endswith("user\n") for a, _ in encoded.users)


@pytest.mark.parametrize("messages", CHATS)
def test_tokens_decode_to_the_rendered_template(messages: tuple[Message, ...]) -> None:
    raw = [{"role": "system", "content": SYSTEM}, *({"role": m.role, "content": m.content} for m in messages)]
    rendered = ENCODER.tokenizer.apply_chat_template(raw, tokenize=False, add_generation_prompt=True)
    assert ENCODER.tokenizer.decode(ENCODER.history(messages, SYSTEM).ids) == rendered


def test_a_reply_is_its_tokens_in_the_next_history_and_the_end_token() -> None:
    whole = ENCODER.history(NURSE, SYSTEM)
    reply = ENCODER.reply(NURSE[1].content)
    start = whole.heads[0]
    assert list(whole.ids[start : start + len(reply)]) == reply
    assert reply[-1] == ENCODER.end == ENCODER.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ENCODER.decode(reply) == NURSE[1].content


@given(TEXTS, TEXTS, TEXTS)
def test_prefix_property_holds_for_any_text(first: str, reply: str, second: str) -> None:
    messages = chat(f"a{first}a", f"a{reply}a", f"a{second}a")
    whole = ENCODER.history(messages, SYSTEM)
    assert ENCODER.history(messages[:1], SYSTEM).ids == whole.ids[: whole.heads[0]]
    assert whole.heads[-1] == len(whole.ids)
    for (start, stop), head in zip(whole.users, whole.heads, strict=True):
        assert 0 < start < stop < head


@pytest.mark.parametrize("trims", [False, True])
def test_white_space_around_messages_is_no_part_of_them(trims: bool) -> None:
    tokenizer = make_tiny_tokenizer()
    if trims:
        tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "(m['content'] | trim)")
        assert "trim" in tokenizer.chat_template
    encoder = ChatEncoder(tokenizer)
    spaced = encoder.history(chat(" tea? ", " Nothing fancy. \n", "\nok\n"), SYSTEM)
    assert spaced == encoder.history(chat("tea?", "Nothing fancy.", "ok"), SYSTEM)
    assert [tokenizer.decode(spaced.ids[a:b]) for a, b in spaced.users] == ["tea?", "ok"]


def test_an_empty_reply_is_possible_and_an_empty_question_is_not() -> None:
    assert len(ENCODER.history(chat("tea?", "", "ok"), SYSTEM).heads) == 2
    with pytest.raises(ModelError, match="empty user message"):
        ENCODER.history(chat("tea?", "ok", " \n"), SYSTEM)


def test_a_template_that_changes_the_users_words_is_refused() -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", "(m['content'] | lower)")
    with pytest.raises(ModelError, match="changes what the user says"):
        ChatEncoder(tokenizer).history(NURSE[:1], SYSTEM)


def test_a_template_that_rewrites_the_past_is_refused() -> None:
    tokenizer = make_tiny_tokenizer()
    # Numbers messages from the end, as templates do that drop the thoughts of earlier turns.
    tokenizer.chat_template = "{% for m in messages %}{{ loop.revindex }}{{ m['content'] }}<|im_end|>{% endfor %}"
    with pytest.raises(ModelError, match="rewrites earlier turns"):
        ChatEncoder(tokenizer).history(NURSE, SYSTEM)


def test_a_tokenizer_without_a_template_is_refused() -> None:
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="instruction-tuned"):
        ChatEncoder(tokenizer)
