"""`pamdp reproduce simulator` (appendix F and beyond): how well simulated users play their part.

Owns which dialogues are looked at. Persona alignment and quality are measured on recorded histories;
leaks, role breaks, repetition and recoverability on the dialogues that Vanilla had with the test users, and beside them
on the recorded ones. Everything that asked a model is stored; a killed audit goes on with the part where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pamdp.errors import RunError
from pamdp.evaluate.imitation import Auditor, ChatAuditor, Imitation, LikelihoodAuditor, Place, imitation, places_of
from pamdp.evaluate.recognise import Likelihood, Profiles, Recogniser, Recovery, Words, draw_others, recover
from pamdp.evaluate.simulator import Audit, Played, audit
from pamdp.evaluate.talks import Exchange, Talk, read_talks
from pamdp.files import json_line, read_json_lines, write_atomic, write_json
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.progress import Progress
from pamdp.reproduce.online.work import Bench, talks_file
from pamdp.seeds import seed_of
from pamdp.types import Dialogue, Persona

_PLACES = TypeAdapter(list[Place])
_FOUND = TypeAdapter(dict[str, Recovery])
_IMITATION = TypeAdapter(Imitation)


@dataclass(frozen=True, slots=True)
class SimulatorResults:
    """Everything the audit found; dictionaries are by whose messages they are: "simulated", "recorded"."""

    imitation: Imitation
    audits: dict[str, Audit]
    recovered: dict[str, dict[str, Recovery]]


def audit_simulator(bench: Bench) -> SimulatorResults:
    """Do what is missing of the audit and give all of it.

    Raises:
      EndpointError: a model cannot be reached; what is done is saved.
    """
    folder = bench.path / "audit"
    folder.mkdir(parents=True, exist_ok=True)
    reader = Likelihood(bench.bare)
    places = _places(bench, folder / "places.jsonl")
    if not (folder / "imitation.json").is_file():
        bench.say(f"the {bench.config.auditor} compares {len(places)} messages with recorded ones")
        found = imitation(places, _auditor(bench, reader), n=bench.config.resamples)
        write_json(folder / "imitation.json", asdict(found))
    for name, talks in _talks(bench).items():
        file = folder / f"recovered-{name}.json"
        if not file.is_file():
            known = dict[str, Recovery]()
            for recogniser in _recognisers(bench, reader):
                bench.say(f"{recogniser.name} tells {name} users apart")
                known[recogniser.name] = recover(talks, recogniser, bench.config.others, n=bench.config.resamples)
            write_json(file, {key: asdict(value) for key, value in known.items()})
    return read_audit(bench.path, bench.split.test, bench.config.seeds[0])


def read_audit(path: Path, test: Sequence[Dialogue], seed: int) -> SimulatorResults:
    """What is stored of the audit.

    Raises:
      RunError: something is missing or damaged.
    """
    folder = path / "audit"
    try:
        compared = _IMITATION.validate_json((folder / "imitation.json").read_bytes())
        recovered = {
            name: _FOUND.validate_json((folder / f"recovered-{name}.json").read_bytes())
            for name in ("simulated", "recorded")
        }
    except OSError as error:
        raise RunError(f"{error.filename} is missing; run `pamdp reproduce simulator` without --render") from error
    except ValidationError as error:
        raise RunError(f"a file in {folder} is damaged; delete the folder to have the audit done again") from error
    talks = {"simulated": read_talks(talks_file(path, "Vanilla", seed)), "recorded": recorded_talks(test)}
    audits = {name: audit([Played(t.persona, t.messages) for t in some]) for name, some in talks.items()}
    return SimulatorResults(compared, audits, recovered)


def recorded_talks(dialogues: Sequence[Dialogue]) -> list[Talk]:
    """Records as dialogues: what real users said."""
    return [
        Talk(d.id, d.user_id, d.persona, d.history(len(d.turns) - 1), (Exchange(d.persona),) * (len(d.turns) - 1))
        for d in dialogues
    ]


def _talks(bench: Bench) -> dict[str, list[Talk]]:
    file = talks_file(bench.path, "Vanilla", bench.config.seeds[0])
    return {"simulated": read_talks(file), "recorded": recorded_talks(bench.split.test)}


def _places(bench: Bench, file: Path) -> list[Place]:
    if not file.is_file():
        seed = bench.config.seeds[0]
        world = replace(bench.world, config=bench.config.of_evaluation(seed))
        total = sum(len(d.turns) - 1 for d in bench.split.test)
        bench.say(f"simulated users answer at {total} turns of records")
        with Progress("imitation", total) as bar:
            found = places_of(bench.split.test, lambda d: world.user(d, seed_of("audit", seed)), bar.advance)
        write_atomic(file, "".join(json_line(_PLACES.dump_python([place], mode="json")[0]) for place in found))
    return _PLACES.validate_python(read_json_lines(file))


def _auditor(bench: Bench, reader: Likelihood) -> Auditor:
    if bench.config.auditor == "judge":
        judge = bench.world.judge
        assert isinstance(judge, PairwiseJudge)  # the settings were checked
        return ChatAuditor(judge.model, judge.attempts)
    pool = list(dict.fromkeys(d.persona for d in bench.split.test))

    def others(place: Place) -> list[Persona]:
        return draw_others(Talk(place.dialogue_id, place.user_id, place.persona, (), ()), pool, bench.config.others, 0)

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
