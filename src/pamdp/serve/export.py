"""What users said of replies as data to learn from: our own lines, or TRL's preference pairs.

Owns what a thumb, a preference and a correction are worth, and how users are named outside of the store. Knows nothing
of training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from pamdp.data.jsonl import write_lines
from pamdp.data.rated import RatedDialogue, RatedReply, write_rated
from pamdp.data.trl import pair_line
from pamdp.errors import StoreError
from pamdp.files import Json, new_folder, require_replaceable
from pamdp.serve.chains import beginnings, chats
from pamdp.serve.erasing import versions
from pamdp.serve.profiles import Profiles
from pamdp.serve.served import ServedReply
from pamdp.serve.store import Feedback, Store
from pamdp.types import Dialogue, History, Persona, PreferencePair, Turn

FILE = "feedback.jsonl"
Layout = Literal["pamdp", "trl"]


def export(store: Store, out: Path, layout: Layout = "pamdp", plain_ids: bool = False) -> int:
    """Write all feedback into the folder OUT, which is replaced; returns the number of lines.

    Args:
      layout: "pamdp" for rated dialogues, "trl" for preference pairs (thumbs alone make none).
      plain_ids: name users as the store does, instead of by `Store.alias`.

    Raises:
      StoreError: there is nothing to write.
      RunError: OUT holds something else.
    """
    require_replaceable(out, [FILE])
    named = str if plain_ids else store.alias
    with new_folder(out) as folder:
        if layout == "trl":
            lines = write_lines(folder / FILE, preference_lines(store, named))
        else:
            lines = write_rated(folder / FILE, rated_dialogues(store, named))
        if not lines:
            raise StoreError(f"{store.place} holds no feedback of this kind yet; nothing was written")
    return lines


def rated_dialogues(store: Store, named: Callable[[str], str]) -> Iterator[RatedDialogue]:
    """Every chat in which a reply was rated; a reply that stands in several chats is rated in the first."""
    spaces, profiles = {version.id: version.space for version in versions(store)}, Profiles(store)
    for user in store.users():
        replies, rated = store.replies(user), rewards(store.feedback(user))
        left = defaultdict[History, list[ServedReply]](list)
        for reply in replies:
            left[reply.spoken].append(reply)
        persona = profiles.read(user).persona
        for chat in chats(replies):
            if not all(message.content.strip() for message in chat):
                continue  # no layout of data holds a message of nothing
            turns, found = list[Turn](), list[RatedReply]()
            for t, history in enumerate(beginnings(chat)):
                given = left.pop(history, [])
                own = [r for reply in given for r in _rated(t, reply, rated.get(reply.id, {}), spaces)]
                went_on = chat[2 * t + 1].content if 2 * t + 1 < len(chat) else None
                turns.append(_turn(history[-1].content, own, went_on, given[-1].text if given else None))
                found += own
            if found:
                yield RatedDialogue(Dialogue(found[0].id, named(user), persona, tuple(turns)), tuple(found))


def rewards(feedback: list[Feedback]) -> dict[str, dict[str, tuple[float, str]]]:
    """Reply -> what was said of it -> reward and, of a correction, its text.

    +1 for a thumb up, for a preferred reply and for a correction, -1 for a thumb down, for a reply that another one was
    preferred over and for one that was corrected. The last thumb counts, and the last correction.
    """
    out = defaultdict[str, dict[str, tuple[float, str]]](dict)
    for said in feedback:
        if said.kind == "thumb":
            out[said.reply]["thumb"] = float(said.thumb or 0), ""
        elif said.kind == "preferred":
            out[said.reply][f"preferred {said.over}"] = 1.0, ""
            out[said.over or ""][f"passed over {said.reply}"] = -1.0, ""
        else:
            out[said.reply]["corrected"] = -1.0, said.text or ""
    return dict(out)


def preference_lines(store: Store, named: Callable[[str], str]) -> Iterator[Mapping[str, Json]]:
    """TRL's lines of preferences and corrections, with the replies, versions and times that they come from."""
    profiles = Profiles(store)
    for user in store.users():
        replies = {reply.id: reply for reply in store.replies(user)}
        persona = profiles.read(user).persona
        for said in store.feedback(user):
            reply = replies[said.reply]
            if said.kind == "thumb":
                continue
            if said.kind == "correction":
                good, bad, of = said.text or "", reply.text, [reply]
            else:
                good, bad, of = reply.text, replies[said.over or ""].text, [reply, replies[said.over or ""]]
            pair = PreferencePair(said.id, persona, reply.spoken, good, bad, said.kind)
            yield {
                **pair_line(pair), "user_id": named(user), "replies": [r.id for r in of],
                "versions": [r.version for r in of], "created": said.created,
            }  # fmt: skip


def _rated(
    t: int, reply: ServedReply, said: Mapping[str, tuple[float, str]], spaces: Mapping[str, str]
) -> Iterator[RatedReply]:
    """A reply that something was said of, and its correction, if there is one."""
    if not said:
        return
    values = [value for value, _ in said.values()]
    by = tuple(dict.fromkeys(" ".join(what.split(" ")[: 2 if what.startswith("passed") else 1]) for what in said))
    space = spaces.get(reply.version, "")
    drawn = (reply.action, reply.mean, reply.sigma if reply.action and reply.mean else 0.0)
    about = (reply.version, space, reply.created)
    if reply.text.strip():
        yield RatedReply(t, reply.text, sum(values) / len(values), by, reply.id, *drawn, *about)
    if correction := said.get("corrected", (0.0, ""))[1]:
        undrawn = (None, None, 0.0)
        yield RatedReply(t, correction, 1.0, ("correction",), reply.id, *undrawn, *about)


def _turn(user: str, rated: list[RatedReply], went_on: str | None, last: str | None) -> Turn:
    """A turn of the record: the best and the worst reply, and the one that the chat went on with on its path."""
    order = sorted(rated, key=lambda reply: reply.reward)
    good = order[-1].text if order and order[-1].reward > 0 else None
    bad = order[0].text if order and order[0].reward < 0 else None
    said = went_on or (last if good is None and bad is None else None)
    if said is not None and said not in (good, bad):
        # What was said stands on the path, whatever was thought of others; those are among the rated ones.
        good, bad = (said, bad) if not any(r.text == said and r.reward < 0 for r in rated) else (good, said)
    return Turn(user, good, bad, "preferred" if said is None or said == good else "rejected", Persona())
