"""How well simulated users play their part (appendix F and beyond): which dialogues are looked at, and what is kept.

Owns the audit's pieces and files. Persona alignment and quality are measured on recorded histories; leaks, role breaks,
repetition and recoverability on the dialogues that Vanilla had with the test users, and beside them on the recorded
ones. What is stored are single answers: shares and intervals are told from them anew, so other resamples and other
seeds find what is right for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pamdp.errors import ConfigError
from pamdp.evaluation.imitation import Auditor, Place, by_chat, by_likelihood, compare_places, places_of
from pamdp.evaluation.recoverability import Likelihood, Recogniser, by_profile, by_words, recognise
from pamdp.evaluation.transcripts import Exchange, Transcript
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.llm.ask import Asking
from pamdp.models.backbone import Backbone
from pamdp.progress import Progress
from pamdp.reproduce.config import OnlineReproduceConfig
from pamdp.reproduce.store import AGAIN, said_file
from pamdp.reproduce.work import Piece
from pamdp.seeds import seed_of
from pamdp.stored import read_records, write_records
from pamdp.train.env_factory import EnvFactory
from pamdp.types import Dialogue

WHOSE = ("simulated", "recorded")


def require_audience(config: OnlineReproduceConfig, test: Sequence[Dialogue]) -> None:
    """Refuse, by a ConfigError, an audit of users without records, or of too few different people."""
    if not all(d.turns for d in test):
        raise ConfigError(
            f"the audit compares simulated messages with recorded ones, and {config.data.path} is a pool of personas "
            "without records; set data.path to dialogues"
        )
    people = len({d.persona for d in test})
    if people <= config.others:
        raise ConfigError(
            f"the audit has to tell a user from {config.others} others, and the {len(test)} test users are {people} "
            f"different persona(s); raise test_users or data.test_share, or set others={max(people - 1, 1)}"
        )


def audit_pieces(
    config: OnlineReproduceConfig,
    path: Path,
    test: Sequence[Dialogue],
    world: EnvFactory,
    backbone: Backbone,
    paid: Callable[[], None],
) -> list[Piece]:
    """What there is to do when Vanilla has talked with the users of TEST; those of WORLD answer.

    The bare BACKBONE reads likelihoods; PAID is called whenever a call has been paid for.
    """
    seed, reader = config.seeds[0], Likelihood(backbone)
    places, total = audit_file(path, "places", seed), sum(len(d.turns) - 1 for d in test)

    def answer() -> None:
        with Progress("imitation", total) as bar:

            def answered(count: int) -> None:
                bar.advance(count)
                paid()

            found = places_of(test, lambda d: world.user(d, seed_of("audit", seed)), answered)
        write_records(places, found)

    def compare() -> None:
        found = compare_places(read_records(places, Place, AGAIN), _auditor(config, test, world, reader))
        write_records(audit_file(path, "compared", seed), found)

    def tell(whose: str) -> None:
        talks = talks_of(path, test, seed)[whose]
        asked = {name: _recogniser(name, world, reader) for name in config.recognisers}
        found = [told for name, each in asked.items() for told in recognise(talks, name, each, config.others)]
        write_records(audit_file(path, f"told-{whose}", seed), found)

    names = ", ".join(config.recognisers)
    return [
        Piece(places, f"simulated users answer at {total} turns of records", answer),
        Piece(
            audit_file(path, "compared", seed), f"{config.auditor} compares these messages with recorded ones", compare
        ),
        *(
            Piece(audit_file(path, f"told-{who}", seed), f"{who} users are told apart by {names}", partial(tell, who))
            for who in WHOSE
        ),
    ]


def audit_file(path: Path, what: str, seed: int) -> Path:
    """Answers that hang on the seed of the dialogues stand in its folder; on real users none bears."""
    return path / "audit" / ("" if what == "told-recorded" else f"seed-{seed}") / f"{what}.jsonl"


def talks_of(path: Path, test: Sequence[Dialogue], seed: int) -> dict[str, list[Transcript]]:
    """Vanilla's dialogues, and the records as dialogues: what real users said."""
    recorded = [
        Transcript(d.id, d.user_id, d.persona, d.history(len(d.turns) - 1), (Exchange(d.persona),) * (len(d.turns) - 1))
        for d in test
    ]
    said = read_records(said_file(path, "Vanilla", seed), Transcript, AGAIN)
    return dict(zip(WHOSE, (said, recorded), strict=True))


def _auditor(config: OnlineReproduceConfig, test: Sequence[Dialogue], world: EnvFactory, reader: Likelihood) -> Auditor:
    if config.auditor == "judge":
        assert isinstance(world.judge, PairwiseJudge)  # the settings were checked
        how = Asking(max_tokens=200, attempts=world.judge.how.attempts)
        return partial(by_chat, model=world.judge.model, how=how)
    pool = list(dict.fromkeys(d.persona for d in test))
    return partial(by_likelihood, reader=reader, pool=pool, others=config.others)


def _recogniser(name: str, world: EnvFactory, reader: Likelihood) -> Recogniser:
    if name == "profiler":
        assert world.profiler is not None  # the settings were checked
        return partial(by_profile, profiler=world.profiler)
    return by_words if name == "words" else reader.scores
