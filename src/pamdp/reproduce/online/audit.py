"""`pamdp reproduce simulator` (appendix F and beyond): how well simulated users play their part.

Owns which dialogues are looked at; where answers are kept, files.py says. Persona alignment and quality are measured on
recorded histories; leaks, role breaks, repetition and recoverability on the dialogues that Vanilla had with the test
users, and beside them on the recorded ones. What is stored are single answers: shares and intervals are told from them
anew, so other resamples and other seeds find what is right for them. A killed audit goes on with the part where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from pamdp.env.simulated import PACE
from pamdp.errors import ConfigError, RunError
from pamdp.evaluation.imitation import (
    Auditor,
    ChatAuditor,
    Compared,
    Imitation,
    LikelihoodAuditor,
    Place,
    compare_places,
    imitation,
    places_of,
)
from pamdp.evaluation.recoverability import (
    Likelihood,
    Profiles,
    Recogniser,
    Recovery,
    Told,
    Words,
    draw_others,
    recognise,
    recovery,
)
from pamdp.evaluation.simulator import Audit, SimulatedDialogue, audit
from pamdp.evaluation.transcripts import Exchange, Transcript, read_talks
from pamdp.files import json_line, read_json_lines, write_atomic
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.llm.ask import Asking
from pamdp.progress import Progress
from pamdp.reproduce.online.config import OnlineReproduceConfig
from pamdp.reproduce.online.files import AuditFiles, talks_file
from pamdp.reproduce.online.work import Bench
from pamdp.seeds import seed_of
from pamdp.types import Dialogue, Persona

T = TypeVar("T")
_PLACES = TypeAdapter(list[Place])
_COMPARED = TypeAdapter(list[Compared])
_TOLD = TypeAdapter(list[Told])
WHOSE = ("simulated", "recorded")


@dataclass(frozen=True, slots=True)
class SimulatorResults:
    """Everything the audit found; dictionaries are by whose messages they are: "simulated", "recorded".

    Attributes:
      pace: sentences of the profile that a user may tell in a turn, at the difficulty that was played.
    """

    imitation: Imitation
    audits: dict[str, Audit]
    recovered: dict[str, dict[str, Recovery]]
    pace: float


def require_audience(config: OnlineReproduceConfig, test: Sequence[Dialogue]) -> None:
    """Refuse an audit that could not be ended, before anything is played.

    Raises:
      ConfigError: test users have no records, or too few of them are different people.
    """
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


def audit_simulator(bench: Bench) -> SimulatorResults:
    """Do what is missing of the audit and give all of it.

    Raises:
      EndpointError: a model cannot be reached; what is done is saved.
    """
    files, config = AuditFiles(bench.path, bench.config.seeds[0]), bench.config
    files.own.mkdir(parents=True, exist_ok=True)
    reader = Likelihood(bench.bare)
    try:
        places = _places(bench, files.places)
        if not files.compared.is_file():
            bench.say(f"the {config.auditor} compares {len(places)} messages with recorded ones")
            _write(files.compared, _COMPARED, compare_places(places, _auditor(bench, reader)))
        for name, talks in _talks(bench.path, bench.split.test, config.seeds[0]).items():
            if not files.told(name).is_file():
                told = list[Told]()
                for recogniser in _recognisers(bench, reader):
                    bench.say(f"{recogniser.name} tells {name} users apart")
                    told += recognise(talks, recogniser, config.others)
                _write(files.told(name), _TOLD, told)
    finally:
        bench.save_costs()
    return read_audit(config, bench.path, bench.split.test)


def read_audit(config: OnlineReproduceConfig, path: Path, test: Sequence[Dialogue]) -> SimulatorResults:
    """What is stored of the audit, with intervals as the settings ask for.

    Raises:
      RunError: something is missing or damaged.
    """
    files, seed, pace = AuditFiles(path, config.seeds[0]), config.seeds[0], PACE[config.online.difficulty]
    compared = imitation(_read(files.compared, _COMPARED), config.auditor, n=config.resamples)
    recovered = {
        name: {
            each: recovery([t for t in told if t.recogniser == each], config.others, n=config.resamples)
            for each in dict.fromkeys(t.recogniser for t in told)
        }
        for name, told in ((name, _read(files.told(name), _TOLD)) for name in WHOSE)
    }
    opened = config.online.opening == "own"
    audits = {
        name: audit([SimulatedDialogue(t.persona, t.messages, t.said) for t in some], pace, opened=opened)
        for name, some in _talks(path, test, seed).items()
    }
    return SimulatorResults(compared, audits, recovered, pace)


def recorded_talks(dialogues: Sequence[Dialogue]) -> list[Transcript]:
    """Records as dialogues: what real users said."""
    return [
        Transcript(d.id, d.user_id, d.persona, d.history(len(d.turns) - 1), (Exchange(d.persona),) * (len(d.turns) - 1))
        for d in dialogues
    ]


def _write(file: Path, kind: TypeAdapter[list[T]], items: list[T]) -> None:
    write_atomic(file, "".join(map(json_line, kind.dump_python(items, mode="json"))))


def _read(file: Path, kind: TypeAdapter[list[T]]) -> list[T]:
    if not file.is_file():
        raise RunError(f"{file} is missing; run `pamdp reproduce simulator` without --render")
    try:
        return kind.validate_python(read_json_lines(file))
    except ValidationError as error:
        raise RunError(f"{file} is damaged; delete it to have this part of the audit done again") from error


def _talks(path: Path, test: Sequence[Dialogue], seed: int) -> Mapping[str, list[Transcript]]:
    return dict(zip(WHOSE, (read_talks(talks_file(path, "Vanilla", seed)), recorded_talks(test)), strict=True))


def _places(bench: Bench, file: Path) -> list[Place]:
    if not file.is_file():
        seed = bench.config.seeds[0]
        world = replace(bench.world, config=bench.config.of_evaluation(seed))
        total = sum(len(d.turns) - 1 for d in bench.split.test)
        bench.say(f"simulated users answer at {total} turns of records")
        with Progress("imitation", total) as bar:

            def answered(count: int) -> None:
                bar.advance(count)
                bench.save_costs()

            found = places_of(bench.split.test, lambda d: world.user(d, seed_of("audit", seed)), answered)
        _write(file, _PLACES, found)
    return _read(file, _PLACES)


def _auditor(bench: Bench, reader: Likelihood) -> Auditor:
    if bench.config.auditor == "judge":
        judge = bench.world.judge
        assert isinstance(judge, PairwiseJudge)  # the settings were checked
        return ChatAuditor(judge.model, Asking(max_tokens=200, attempts=judge.how.attempts))
    pool = list(dict.fromkeys(d.persona for d in bench.split.test))

    def others(place: Place) -> list[Persona]:
        return draw_others(
            Transcript(place.dialogue_id, place.user_id, place.persona, (), ()), pool, bench.config.others, 0
        )

    return LikelihoodAuditor(reader, others)


def _recognisers(bench: Bench, reader: Likelihood) -> list[Recogniser]:
    out: list[Recogniser] = []
    for name in bench.config.recognisers:
        if name == "profiler":
            assert bench.world.profiler is not None  # the settings were checked
            out.append(Profiles(bench.world.profiler))
        else:
            out.append(reader if name == "likelihood" else Words())
    return out
