"""The judges that come with the package: small, trained on the sample's training users, calibrated.

Owns their files and names: `match` (whom a reply suits), `sense` (whether it reads like a person's), `match+sense`,
`likelihood` (built differently) and `embedded`, the sum of match and likelihood. They are right about written pairs and
agree with no reader about what a small model writes (docs/results.md); those of from_readings.py do better. Knows
nothing of training runs.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

from torch import Tensor

from pamdp.checkpoint import load_tensors, save_tensors
from pamdp.errors import ModelError
from pamdp.files import new_folder, write_json
from pamdp.judges.folder import Trained, fingerprint_of, read_about
from pamdp.judges.likelihood import ADAPTER, LikelihoodHead, LikelihoodScorer
from pamdp.judges.match import MatchHead, MatchScorer
from pamdp.judges.scoring import Calibration, Scorer, ScoringJudge, Sum
from pamdp.judges.sense import SenseHead, SenseScorer
from pamdp.models.adapters import adapter_tensors, restore_adapter
from pamdp.models.backbone import Backbone
from pamdp.registry import JUDGES

SUMS = {"embedded": ("match", "likelihood"), "match+sense": ("match", "sense")}
"""Judges that are others' sums, each divided by its temperature."""
NAMES = ("embedded", "match+sense", "match", "likelihood", "sense")
FILES = ("config.json", "match.safetensors", "likelihood.safetensors", "sense.safetensors")
"""What a folder of judges holds."""


def shipped() -> Path:
    """Folder of the judges' weights in the package."""
    with as_file(files("pamdp") / "assets" / "judges") as folder:
        return Path(folder)


def load_judge(name: str, backbone: Backbone, folder: Path | None = None) -> ScoringJudge:
    """The judge NAME, one of NAMES, on its backbone.

    Raises:
      ModelError: its weights are missing, or were trained on another backbone.
    """
    folder = folder or shipped()
    about = read_about(folder, backbone.name, backbone.revision, "pamdp judge train")
    temperature: dict[str, float] = about["temperature"]
    match = MatchScorer(backbone, _match_head(folder), about["layers"])
    makers: dict[str, Callable[[], Scorer]] = {
        "match": lambda: match,
        "likelihood": lambda: _likelihood(backbone, folder, about["cut"]),
        "sense": lambda: SenseScorer(match, _sense_head(folder)),
    }
    parts = [(makers[part](), temperature[part]) for part in SUMS.get(name, (name,))]
    scorer = Sum(parts) if len(parts) > 1 else parts[0][0]
    return ScoringJudge(name, scorer, Calibration(temperature.get(name, 1.0)), fingerprint_of(folder, backbone))


def save_judges(
    folder: Path, match: MatchScorer, likelihood: LikelihoodScorer, sense: SenseScorer, temperature: dict[str, float]
) -> None:
    """Write the judges whole, the large ones in half precision."""
    backbone = match.backbone
    adapter = {f"adapter.{k}": v.half() for k, v in adapter_tensors(backbone, ADAPTER).items()}
    head = {f"head.{k}": v for k, v in likelihood.head.state_dict().items()}
    with new_folder(folder) as part:
        save_tensors(part / "match.safetensors", {k: v.half() for k, v in match.head.state_dict().items()})
        save_tensors(part / "likelihood.safetensors", {**adapter, **head})
        save_tensors(part / "sense.safetensors", dict(sense.head.state_dict()))
        write_json(
            part / "config.json",
            {
                "backbone": backbone.name, "revision": backbone.revision, "layers": list(match.layers),
                "cut": likelihood.cut, "temperature": dict(temperature),
            },
        )  # fmt: skip


def _tensors(folder: Path, name: str) -> dict[str, Tensor]:
    file = folder / f"{name}.safetensors"
    if not file.is_file():
        raise ModelError(f"no judge of {name} in {folder}; `pamdp judge train` makes all judges")
    return {k: v.float() for k, v in load_tensors(file).items()}


def _match_head(folder: Path) -> MatchHead:
    tensors = _tensors(folder, "match")
    members, persona, rank = tensors["f"].shape
    head = MatchHead(persona, tensors["g"].shape[1], rank, members)
    head.load_state_dict(tensors)
    return head.requires_grad_(False)


def _sense_head(folder: Path) -> SenseHead:
    tensors = _tensors(folder, "sense")
    head = SenseHead(len(tensors["weight"]))
    head.load_state_dict(tensors)
    return head


def _likelihood(backbone: Backbone, folder: Path, cut: int) -> LikelihoodScorer:
    tensors = _tensors(folder, "likelihood")
    adapter = {k[8:]: v for k, v in tensors.items() if k.startswith("adapter.")}
    restore_adapter(backbone, ADAPTER, adapter)
    head = LikelihoodHead(backbone.d)
    head.load_state_dict({k[5:]: v for k, v in tensors.items() if k.startswith("head.")})
    return LikelihoodScorer(backbone, head.requires_grad_(False), cut)


for _name in NAMES:
    JUDGES.add(_name, Trained(_name, shipped, load_judge))
