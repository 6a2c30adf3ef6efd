"""Online evaluation (paper, section 4.2): a policy talks with simulated users, and judges grade what it said.

Owns how a dialogue is played for evaluation: under mean actions, with users, openings and draws that are the same for
all policies, and with reference replies from one author who is none of them. The rollout is the one of training. Which
judge grades does not change how a dialogue goes on, so it is played once and graded by each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pamdp.async_bridge import run, together
from pamdp.env.references import WrittenReferences
from pamdp.env.reward import Reward
from pamdp.errors import AnswerError
from pamdp.evaluation.transcripts import Exchange, MessageNote, Transcript
from pamdp.journal import Journal
from pamdp.judges.base import Judge
from pamdp.launch import Launcher, Local
from pamdp.models.policy import Policy
from pamdp.train.env_factory import EnvFactory
from pamdp.train.online import played
from pamdp.train.site import Round, Site, named
from pamdp.types import Dialogue, History, Message, TimeStep


def talk_with(
    policy: Policy,
    dialogues: Sequence[Dialogue],
    world: EnvFactory,
    *,
    seed: int,
    journal: Journal | None = None,
    progress: Callable[[int, str], None] = lambda *_: None,
    launcher: Launcher[Site] | None = None,
) -> list[Transcript]:
    """Play T turns with the user of each dialogue; horizon, longest reply and groups are those of the world's settings.

    SEED is of the users' draws, and equal for all policies that are compared. JOURNAL has the turns that were played
    before, and every one that ended where an EndpointError ends the rest. LAUNCHER: who plays; None: this process.
    """
    launcher = launcher or Local(Site(policy, world=world))
    shared = Round(named(policy, launcher), world.config, seed, learns=False)  # nobody judges yet
    rollout = played(launcher, shared, dialogues, journal, progress)
    out = []
    for dialogue in dialogues:
        said = sorted((t for t in rollout.transitions if t.key == dialogue.id), key=lambda t: t.t)
        moments = [rollout.moments[t.key, t.t] for t in said]
        last = rollout.moments.get((dialogue.id, len(said)))  # None where the user ended the dialogue
        stock = [m.stock for m in moments[1:]] + [last is not None and last.stock]
        exchanges = tuple(Exchange(m.privileged, m.known and not s) for m, s in zip(moments, stock, strict=True))
        heard = tuple(MessageNote(m.stock, m.rejected) for m in (*moments, last) if m is not None)
        messages = last.history if last else (*moments[-1].history, Message("assistant", said[-1].reply))
        out.append(Transcript(dialogue.id, dialogue.user_id, dialogue.persona, messages, exchanges, heard))
    return out


def with_references(
    talks: Sequence[Transcript], writer: WrittenReferences, each: Callable[[], None] | None = None
) -> list[Transcript]:
    """The same dialogues with u_g for every reply that is not masked; all are written at the same time.

    EACH is called after each of them; an EndpointError says that the writer cannot be reached.
    """

    async def one(step: TimeStep) -> str | None:
        if not step.known:
            return None
        try:
            return (await writer([step])[0])[0]
        except AnswerError:
            return None
        finally:
            if each is not None:
                each()

    texts = iter(run(together(one(talk.step(t)) for talk in talks for t in range(len(talk.exchanges)))))
    return [replace(k, exchanges=tuple(replace(e, reference=next(texts)) for e in k.exchanges)) for k in talks]


def grade(
    talks: Sequence[Transcript], judge: Judge, soft: bool = True, each: Callable[[], None] | None = None
) -> list[list[float | None]]:
    """r_t of every reply of every dialogue, by a judge who compares it with u_g; None where it is masked.

    SOFT is the expected reward under the verdict's probabilities in place of the verdict's own.
    """
    places = [(talk, t) for talk in talks for t in range(len(talk.exchanges))]
    written = ((talk.history(t), talk.exchanges[t].reference) for talk, t in places)
    references: dict[History, tuple[str, ...]] = {history: (text,) for history, text in written if text is not None}
    reward = Reward(judge, lambda steps: [references.get(step.history, ()) for step in steps], soft)
    given = reward.begin([talk.step(t) for talk, t in places], [[talk.reply(t)] for talk, t in places])
    found = list[float | None]()
    for future in given:
        found += future.result()
        if each is not None:
            each()
    values = iter(found)
    return [[next(values) for _ in talk.exchanges] for talk in talks]
