"""The judges that were fitted on blind readings: `signals` (the default reward) and `reward-model`.

Owns their training together, their files and names. What they are worth stands in docs/results.md: agreement with
readers on users whom nobody trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path

from torch import Tensor

from pamdp.checkpoint import load_tensors, save_tensors
from pamdp.data.readings import ReadState, decided_pairs
from pamdp.errors import DataError, ModelError
from pamdp.files import Json, new_folder, write_json
from pamdp.judges.folder import Trained, fingerprint_of, read_about
from pamdp.judges.reward_model import ADAPTER, RewardHead, RewardModel, train_reward_model
from pamdp.judges.scoring import Calibration, Scorer, ScoringJudge, fit_temperature
from pamdp.judges.signals import NUMBERS, Signals, SignalsScorer, train_signals
from pamdp.models.adapters import adapter_tensors, restore_adapter
from pamdp.models.backbone import Backbone
from pamdp.progress import Progress
from pamdp.registry import JUDGES

REWARD_MODEL, SIGNALS = "reward-model", "signals"
REWARD, SECOND = SIGNALS, REWARD_MODEL
"""What rewards by default, the better of the two on valid users, and what grades beside it."""
NAMES = (REWARD_MODEL, SIGNALS)
FIRST, LAST = 0.4, 0.67
"""Depths between which the reward model is adapted; it reads at the second."""
FILES = ("clone.safetensors", "config.json", "reward-model.safetensors", "signals.safetensors")
"""What a folder of these judges holds; the package's clone is its policy's adapter, which is not there twice."""
CLONE = "clone of signals"
"""How names of adapters begin under which `signals` asks how likely a reply is; what follows tells their weights."""


def shipped() -> Path:
    """Folder of the judges' weights in the package."""
    with as_file(files("pamdp") / "assets" / "readers") as folder:
        return Path(folder)


def train_from_readings(
    backbone: Backbone,
    states: Sequence[ReadState],
    valid: Sequence[ReadState],
    epochs: int = 3,
    seed: int = 0,
    clone: str | None = None,
) -> tuple[RewardModel, SignalsScorer, dict[str, float]]:
    """Both judges, fitted on STATES; their temperatures, on VALID, states of other users.

    CLONE names the adapter of a cloned policy, by which `signals` says how likely a reply is; None: the bare backbone.
    """
    layers = len(backbone.layers)
    first = round(FIRST * layers)
    last = max(first + 1, round(LAST * layers))
    with Progress("reward model", len(states) * (1 + epochs)) as bar:
        model = train_reward_model(
            backbone, states, first=first, last=last, epochs=epochs, seed=seed, progress=bar.advance
        )
    with Progress("signals", len(states)) as bar:
        signals = train_signals(backbone, states, clone, progress=bar.advance)
    with Progress("calibrating", 2 * len(valid)) as bar:
        temperature = {
            name: _temperature(scorer, valid, bar.advance)
            for name, scorer in ((REWARD_MODEL, model), (SIGNALS, signals))
        }
    return model, signals, temperature


def _temperature(scorer: Scorer, states: Sequence[ReadState], progress: Callable[[int], None]) -> float:
    """τ that calibrates a scorer on the pairs that readers decided."""
    differences = []
    for state in states:
        texts = [reply.text for reply in state.replies.values()]
        score = dict(zip(texts, scorer.score(state.persona, state.history, texts), strict=True))
        differences += [score[pair.preferred] - score[pair.rejected] for pair in decided_pairs([state])]
        progress(1)
    if not differences:
        raise DataError("no pair of the states to calibrate on is decided", fix="give readings with a decided `prefer`")
    return fit_temperature(differences)


def save(folder: Path, model: RewardModel, signals: SignalsScorer, temperature: dict[str, float]) -> None:
    """Write both judges whole, the reward model in half precision."""
    backbone = model.backbone
    adapter = {f"adapter.{k}": v.half() for k, v in adapter_tensors(backbone, ADAPTER).items()}
    head = {f"head.{k}": v.half() for k, v in model.head.state_dict().items()}
    with new_folder(folder) as part:
        save_tensors(part / "reward-model.safetensors", {**adapter, **head})
        save_tensors(part / "signals.safetensors", dict(signals.signals.state_dict()))
        if signals.clone is not None:
            save_tensors(part / "clone.safetensors", adapter_tensors(backbone, signals.clone))
        about: dict[str, Json] = {"backbone": backbone.name, "revision": backbone.revision}
        about |= {"first": model.first, "last": model.last, "temperature": temperature, "numbers": [*NUMBERS]}
        about["clone"] = None if signals.clone is None else _digest(part / "clone.safetensors")
        write_json(part / "config.json", about)


def load(name: str, backbone: Backbone, folder: Path | None = None) -> ScoringJudge:
    """The judge NAME, one of NAMES, on its backbone.

    Raises:
      ModelError: its weights are missing, or were trained on another backbone.
    """
    folder = folder or shipped()
    about = read_about(folder, backbone.name, backbone.revision, "pamdp judge train --readings")
    tensors, clone = _tensors(folder / f"{name}.safetensors"), _clone(folder, about.get("clone"))
    scorer: Scorer
    if name == REWARD_MODEL:
        adapter = {key[8:]: value for key, value in tensors.items() if key.startswith("adapter.")}
        restore_adapter(backbone, ADAPTER, adapter)
        head = RewardHead(2 * backbone.d)
        head.load_state_dict({key[5:]: value for key, value in tensors.items() if key.startswith("head.")})
        scorer = RewardModel(backbone, head.requires_grad_(False), about["first"], about["last"])
    else:
        if about.get("numbers") != [*NUMBERS]:
            raise ModelError(
                f"{folder} has weights of other numbers than {SIGNALS} has now; fit it again: pamdp judge train "
                "--readings"
            )
        signals = Signals(backbone.d)
        signals.load_state_dict(tensors)
        named = None if clone is None else f"{CLONE} {about['clone']}"
        if clone is not None and named is not None and named not in getattr(backbone.model, "peft_config", {}):
            restore_adapter(backbone, named, _tensors(clone))
        scorer = SignalsScorer(backbone, signals, named)
    fingerprint = fingerprint_of(folder, backbone, *([] if clone is None else [clone]))
    return ScoringJudge(name, scorer, Calibration(about["temperature"][name]), fingerprint)


def _tensors(file: Path) -> dict[str, Tensor]:
    """Weights in full precision; a ModelError where they are missing."""
    try:
        return {key: value.float() for key, value in load_tensors(file).items()}
    except OSError as error:
        raise ModelError(f"no {file.name} in {file.parent}; `pamdp judge train --readings` makes it") from error


def _clone(folder: Path, digest: str | None) -> Path | None:
    """The file of that DIGEST with the adapter of the clone whom `signals` in FOLDER asks; None: it asks none.

    The package's is its policy. A ModelError where it is missing.
    """
    if digest is None:
        return None
    for file in (folder / "clone.safetensors", shipped().with_name("policy") / "adapter.safetensors"):
        if file.is_file() and _digest(file) == digest:
            return file
    raise ModelError(f"{folder / 'clone.safetensors'} is missing or another's; `pamdp judge train --readings` makes it")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


for _name in NAMES:
    JUDGES.add(_name, Trained(_name, shipped, load))
