"""What workers, network, servers and the learner cost: constants with their sources, and what is measured here.

Owns units (seconds, bytes, tokens), the file of constants (scale.toml) and the small measurements: the planner's bytes
by writing a real one, the learner's seconds by real updates, the embedded model's decoding and loading on this CPU,
lengths of the sample's messages. Times are of one thread, in seconds of the processor, which other load disturbs less.
Knows nothing of how a run is simulated.
"""

from __future__ import annotations

import heapq
import math
import re
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from benchmarks import inputs
from benchmarks.arena import Options
from benchmarks.measure import machine
from pamdp.checkpoint import save_tensors
from pamdp.config import Config, RLConfig
from pamdp.data import load_sample
from pamdp.learner import Learner
from pamdp.models.actor import Planner
from pamdp.models.backbone import Backbone, Readout
from pamdp.models.critics import DualCritic
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy, Request, path
from pamdp.rl.returns import max_value
from pamdp.settings import Settings, load
from pamdp.transitions import Batch

CONSTANTS = Path(__file__).with_name("scale.toml")
WIDE = 3584
"""Width of Qwen2.5-7B's hidden states."""
PASS = 512
"""Tokens that are read in one pass (models/prefill.py)."""
ROWS = 64
"""Replies that are written at once (rollout.collect)."""
LENGTHS = 50
"""How many lengths of replies stand for the sample's, evenly spread over them in order."""


class WorkerCosts(Settings):
    """A worker's model, and what its size makes of planner, transitions and learner.

    Attributes:
      step_s, row_s: seconds of a decode step: whatever its rows, and for each row.
      prefill_s: seconds for each token that is read.
      load_s: seconds until a new worker can work.
      planner_bytes: what each node is sent every round.
      transition_bytes: what comes back for each reply.
      learner_s, learner_transition_s: seconds of a round's update: fixed, and for each transition.
    """

    step_s: float
    row_s: float
    prefill_s: float
    load_s: float
    planner_bytes: int
    transition_bytes: int
    learner_s: float
    learner_transition_s: float

    def reading(self, tokens: float) -> float:
        """Seconds of the passes over so many tokens."""
        return math.ceil(tokens / PASS) * self.step_s + tokens * self.prefill_s

    def writing(self, lengths: Sequence[int], rows: int = ROWS) -> float:
        """Seconds of decoding replies of some lengths, at most ROWS at once: who ends makes room for who waits."""
        ends = [0] * min(rows, len(lengths))
        for length in lengths:
            heapq.heapreplace(ends, ends[0] + length)
        return max(ends, default=0) * self.step_s + sum(lengths) * self.row_s


class CallCosts(Settings):
    """Calls of language models on servers; the time of an answer grows with its tokens.

    Attributes:
      first_s, token_s: median seconds until an answer begins, and for each of its tokens.
      spread: standard deviation of the logarithm of a call's time.
    """

    first_s: float
    token_s: float
    spread: float

    def answering(self, tokens: float) -> float:
        """Median seconds of a call whose answer has so many tokens."""
        return self.first_s + self.token_s * tokens


class ClusterCosts(Settings):
    """Machines, their network and their faults.

    Attributes:
      workers_per_node: how many share what a node was sent.
      bytes_per_s: of the driver's link; transfers take turns.
      dispatch_s: seconds of the driver for handing one worker its work, and for taking what it gives.
      slow_share, slow_factor: which share of the workers is slow in a round, and how many times longer it takes.
      jitter: standard deviation of the logarithm of every worker's speed in a round.
      hours_between_failures: mean time until a worker dies.
    """

    workers_per_node: int
    bytes_per_s: float
    dispatch_s: float
    slow_share: float
    slow_factor: float
    jitter: float
    hours_between_failures: float


class TextCosts(Settings):
    """Tokens of texts: of replies (a distribution), and of messages and descriptions of persons (means)."""

    reply_tokens: tuple[int, ...]
    message_tokens: int
    persona_tokens: int


class Costs(Settings):
    """All of them; the last four are kinds of workers."""

    cluster: ClusterCosts
    calls: CallCosts
    text: TextCosts
    small_cpu: WorkerCosts
    small_gpu: WorkerCosts
    eager_7b: WorkerCosts
    graph_7b: WorkerCosts


def read_costs(measured: Path, overrides: Sequence[str] = ()) -> Costs:
    """The constants, what was measured, and "part.name=value" over both; a ConfigError names what is wrong."""
    return load(Costs, [CONSTANTS, measured], overrides)


def sources(measured: Path, overrides: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """Name, value and source of every constant: the comment on its line, or "given" for what an override says."""
    found = {name: (name, value, source) for file in (CONSTANTS, measured) for name, value, source in _lines(file)}
    given = (text.partition("=") for text in overrides)
    return list((found | {name: (name, value, "given") for name, _, value in given}).values())


def _lines(file: Path) -> Iterator[tuple[str, str, str]]:
    part = ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if header := re.match(r"\[(\w+)\]", line):
            part = header[1]
        elif entry := re.match(r"(\w+) = (.+?)\s+# (.+)", line):
            yield f"{part}.{entry[1]}", entry[2], entry[3]


def measure(config: Config) -> str:
    """What this machine can tell, for a run with the settings CONFIG, as TOML with a source for every line."""
    torch.set_num_threads(1)
    facts = machine()
    here = f"measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {facts['cpu']}, one thread"
    start = time.perf_counter()  # of the clock: most of it is waiting for the disk
    backbone = inputs.backbone()
    loading = time.perf_counter() - start
    small = {**_planner_and_learner(backbone.d, config), "load_s": loading}
    wide = _planner_and_learner(WIDE, config)
    shared = {name: value for name, value in small.items() if name != "load_s"}
    parts: dict[str, dict[str, object]] = {
        "text": _texts(backbone),
        "small_cpu": small | _decoding(backbone),
        "small_gpu": shared,
        "eager_7b": wide,
        "graph_7b": wide,
    }  # fmt: skip
    lines = [f"# Written by benchmarks/scale_costs.py. torch {facts['torch']}, load {facts['load']}."]
    for part, values in parts.items():
        lines += ["", f"[{part}]", *(f"{name} = {_toml(value)} # {here}" for name, value in values.items())]
    text = "\n".join(lines) + "\n"
    tomllib.loads(text)
    return text


def _toml(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _texts(backbone: Backbone) -> dict[str, object]:
    """Lengths in tokens of what the sample's dialogues hold."""
    dialogues = load_sample("train").dialogues
    count = backbone.chat.reply
    replies = sorted(len(count(turn.reply)) for d in dialogues for turn in d.turns if turn.reply)
    spots = np.linspace(0, len(replies) - 1, LENGTHS).round().astype(int)
    said = [len(count(turn.user)) for d in dialogues for turn in d.turns]
    persons = [len(count(d.persona.text)) for d in dialogues]
    return {
        "reply_tokens": [replies[i] for i in spots],
        "message_tokens": round(np.mean(said)),
        "persona_tokens": round(np.mean(persons)),
    }  # fmt: skip


def _decoding(backbone: Backbone) -> dict[str, object]:
    """Seconds of a decode step as fixed part and part of each row, and of a token that is read."""
    policy = Policy(backbone, readout=Readout(layer=backbone.layer_at(0.6)))
    histories = [path(d) for d in inputs.dialogues(Options(users=32, turns=4))]
    with torch.no_grad():
        start = time.process_time()
        prefixes = policy.prefixes(histories)
        reading = (time.process_time() - start) / sum(len(p.encoded.ids) for p in prefixes)
    rows, seconds = [], []
    for n in (1, 4, 16, 32):
        start = time.process_time()
        texts = policy.write(prefixes[:n], [Request(i, -1) for i in range(n)], Sampling(32, trim=False))
        seconds.append(time.process_time() - start)
        written = [min(len(backbone.chat.reply(text)), 32) for text in texts]
        rows.append((max(written), sum(written)))
    (step, row), *_ = np.linalg.lstsq(np.array(rows, float), np.array(seconds), rcond=None)
    return {"step_s": float(max(step, 0.0)), "row_s": float(max(row, 0.0)), "prefill_s": reading}


def _planner_and_learner(d: int, config: Config) -> dict[str, object]:
    """Bytes of a written planner and of a transition, and the time of updates, for hidden states of width D."""
    model = config.model
    width = d * len(model.readouts)
    planner = Planner(width, d, model.d_a, model.n_embeddings, steers=config.clone.steer > 0)
    with tempfile.TemporaryDirectory() as folder:
        save_tensors(file := Path(folder) / "planner.safetensors", planner.state_dict())
        size = file.stat().st_size
    planner.actor.sigma.fill_(config.rl.sigma)
    sizes = [32 * config.rl.horizon, 256 * config.rl.horizon]
    batches = [_batch(n, width, planner, config.rl) for n in sizes]
    few, many = (_update_seconds(planner, width, batch, config.rl) for batch in batches)
    each = max((many - few) / (sizes[1] - sizes[0]), 0.0)
    tensors = [value for name in Batch.__slots__ if isinstance(value := getattr(batches[1], name), torch.Tensor)]
    return {
        "planner_bytes": size,
        "transition_bytes": sum(value.nbytes for value in tensors) // sizes[1],
        "learner_s": max(few - each * sizes[0], 0.0),
        "learner_transition_s": each,
    }


def _batch(n: int, width: int, planner: Planner, rl: RLConfig) -> Batch:
    """N replies of dialogues that are cut off at the horizon: each has one state more than replies."""
    draw = torch.Generator().manual_seed(0)
    dialogues, turns = n // rl.horizon, rl.horizon
    states = torch.randn(2, dialogues * (turns + 1), width, generator=draw)
    state = (torch.arange(dialogues)[:, None] * (turns + 1) + torch.arange(turns)).flatten()
    with torch.no_grad():
        mean = planner.actor(states[0, state])
    action = mean + rl.sigma * torch.randn(mean.shape, generator=draw)
    reward = torch.rand(n, generator=draw) * 2 - 1
    kept = torch.ones(n, dtype=torch.bool)
    h, hw = states
    return Batch(h, hw, state, state + 1, action, mean, torch.full((n,), rl.sigma), reward, kept)


def _update_seconds(planner: Planner, width: int, batch: Batch, rl: RLConfig) -> float:
    critics = DualCritic(width, width, max_value(1.0, rl.gamma, rl.horizon))
    learner = Learner(planner.actor, critics, rl)
    learner.fit(batch)
    start = time.process_time()
    learner.update(batch, torch.Generator().manual_seed(0))
    return time.process_time() - start
