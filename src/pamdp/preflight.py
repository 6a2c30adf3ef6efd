"""What must hold before a run is evaluated, so that its rates mean what they say.

Owns these refusals: judges, an unfinished run, other data, a control that is none. No model is loaded for them. Who was
learned from may not test: train/policy_metadata.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from pamdp.calls_config import JudgeConfig
from pamdp.config import Config
from pamdp.errors import ConfigError, RunError
from pamdp.evaluation.run_reader import reward_judge
from pamdp.judges.embedded import SUMS
from pamdp.judges.graders import grader, require_fitting
from pamdp.runs import Run
from pamdp.settings import flatten
from pamdp.train.factory import Split
from pamdp.train.policy_metadata import read_metadata, require_unseen
from pamdp.workflows import split_of


def evaluated_split(run: Run, settings: Config, permuted: Path | None = None) -> Split:
    """The data of a run, once everything holds that lets its policies, and those of its control, be tested on them."""
    require_finished(run)
    if permuted is not None:
        require_control(Run(permuted), run)
    split = split_of(settings)
    require_data(run, split)
    trained = (path / "trained" for path in (run.path, permuted) if path is not None)
    require_unseen(split.test, [run.path / "policy", *(path for path in trained if path.is_dir())])
    return split


def require_judges(names: Sequence[str], run: Run, reached: JudgeConfig = JudgeConfig()) -> None:
    """A ConfigError for names that are no list of judges, and for the judge that rewarded, or its parts, alone.

    A ModelError for a judge that cannot judge beside the run's backbone; REACHED is the setting `judge`.
    """
    if not all(names) or not names:
        raise ConfigError(f"--judges {','.join(names)!r} has an empty name; write judges as signals,reward-model")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"--judges names {twice!r} twice; name every judge once")
    rewarded = reward_judge(run.fingerprint())
    if rewarded is not None and set(names) <= {rewarded, *SUMS.get(rewarded, ())}:
        raise ConfigError(
            f"--judges {','.join(names)}: {rewarded} gave the rewards of {run.path}, which was trained to please it, "
            "so neither it nor its parts may grade alone; add a judge that is built differently, such as reward-model"
        )
    if (folder := run.path / "policy").is_dir():
        about = read_metadata(folder)
        require_fitting((grader(reached, name) for name in names), about.base_model, about.revision)


def require_finished(run: Run) -> None:
    """A RunError for a run that rewards were given in and that has no trained policy yet; a clone needs none."""
    if run.fingerprint()["judges"] and not (run.path / "trained").is_dir():
        raise RunError(
            f"{run.path} has no trained/: its training has not finished; continue it with the command that started it "
            "and --resume"
        )


def require_data(run: Run, split: Split) -> None:
    """A RunError where the data have changed since the run was started."""
    if (before := run.fingerprint()["data"]) != split.sha256:
        raise RunError(
            f"the data of {run.path} have changed since it was trained (sha256 {str(before)[:12]}, now "
            f"{split.sha256[:12]}); put back the files of data.path, or train anew"
        )


def require_control(control: Run, run: Run) -> None:
    """A RunError for a control that has not finished, or differs in more than that its advantages were permuted."""
    settings, mine = flatten(control.config(Config)), flatten(run.config(Config))
    if not settings["rl.permute"] or mine["rl.permute"]:
        raise RunError(
            f"--permuted {control.path}: rl.permute is {str(settings['rl.permute']).lower()} there and "
            f"{str(mine['rl.permute']).lower()} in {run.path}; give a run of `pamdp train offline ... rl.permute=true` "
            "as control of one without"
        )
    require_finished(control)
    cloned, controls = (
        {file.name: sha256(file.read_bytes()).digest() for file in (path / "policy").glob("*.safetensors")}
        for path in (run.path, control.path)
    )
    if not cloned or controls != cloned:
        raise RunError(
            f"--permuted {control.path} and {run.path} were not trained from the same clone; train the control with "
            "the same --from"
        )
    same = [key for key in mine if key.split(".")[0] in ("seed", "data", "rl") and key != "rl.permute"]
    others = [f"{key} is {settings[key]!r}, not {mine[key]!r}" for key in same if settings[key] != mine[key]]
    theirs, ours = control.fingerprint(), run.fingerprint()
    others += [f"its {key} are others" for key in ("data", "judges") if theirs[key] != ours[key]]
    if others:
        raise RunError(
            f"--permuted {control.path} differs from {run.path} in more than rl.permute: {'; '.join(others)}; train "
            "it with the same settings"
        )
