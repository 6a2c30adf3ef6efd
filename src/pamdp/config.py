"""The settings of a run: small frozen models, one per part, which constructors take apart.

Owns names, defaults and ranges of settings. Knows nothing of how they are read and written (settings.py) or who uses
them. Values named "Table 4" are the paper's; `pamdp.presets/paper.toml` has all of them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pamdp.calls_config import EndpointConfig, JudgeConfig, SimulatorConfig
from pamdp.errors import ConfigError
from pamdp.launcher_config import LauncherConfig
from pamdp.place_config import PlaceConfig
from pamdp.registry import ADVANTAGES, LAYOUTS, USERS
from pamdp.settings import Settings, known


class DataConfig(Settings):
    """Which dialogues.

    Attributes:
      path: a file or folder, a data set of the Hugging Face hub (hf:OWNER/NAME[@REVISION][:SPLIT[:CONFIGURATION]]), or
        dialogues of the package: "plain" (everyday ones), "plain-rl" (further users of theirs to reinforce on) or
        "sample" (terse ones, the hard set).
      format: the layout, by name, or "auto" to recognise it.
      test_share: share of the users held out where the data brings no split of its own.
      split_seed: another number, other test users; apart from `seed`, so that runs of other seeds keep the same split.
      pairs: preference pairs whose replies teach what actions mean (cloning only): "auto" for those of the sample where
        `path` is the sample and none elsewhere, "sample", a file, or "" for none.
      folds: parts of the topics for cross-validation in place of a share of the users; `split_seed` says which part
        tests. 0 for none.
      train_dialogues, test_dialogues: how many are taken of each part, spread evenly over it; 0 for all.
      skip_bad: count and skip bad records instead of stopping at the first.
    """

    path: str = "sample"
    format: Annotated[str, known(LAYOUTS, "auto")] = "auto"
    test_share: float = Field(default=0.2, ge=0, lt=1)
    split_seed: int = Field(default=0, ge=0)
    pairs: str = "auto"
    folds: int = Field(default=0, ge=0)
    train_dialogues: int = Field(default=0, ge=0)
    test_dialogues: int = Field(default=0, ge=0)
    skip_bad: bool = False


class ModelConfig(PlaceConfig):
    """The backbone, where it computes (`PlaceConfig`), where H(h) is read from it, and the action.

    Attributes:
      name: "embedded", a local folder, or a Hugging Face model name.
      readouts: where H(h) is read: "header", "user" (the last user message), "users" (all of them so far).
      depth: how deep H(h) is read, as a share of the backbone's layers; 1 is the last one, after the final norm.
      d_a: action dimension (Table 4).
      n_embeddings: how many input embeddings A2 makes of an action; 0: it only shifts hidden states (`clone.steer`).
      overflow: dialogues longer than the backbone has positions: "refuse" them, or "drop" first turns (counted).
      checkpointing: compute parts of a pass again for its gradient instead of keeping them: "on", "off", or "auto" for
        long passes only. It changes memory and time, no result.
    """

    name: str = "embedded"
    readouts: tuple[Literal["header", "user", "users"], ...] = Field(default=("users", "user"), min_length=1)
    depth: float = Field(default=0.6, ge=0, le=1)
    d_a: int = Field(default=64, ge=1)
    n_embeddings: int = Field(default=4, ge=0)
    overflow: Literal["refuse", "drop"] = "refuse"
    checkpointing: Literal["auto", "on", "off"] = "auto"


class EngineConfig(Settings):
    """What writes replies. H(h), likelihoods and learning are the backbone's, whatever it is.

    Attributes:
      kind: "hf": transformers, as everything else; or "vllm" (docs/vllm.md), which has the weights once more.
      cache_gb: memory for vLLM's keys and values.
    """

    kind: Literal["hf", "vllm"] = "hf"
    cache_gb: float = Field(default=1.0, gt=0)


def require_hf(config: EngineConfig, what: str) -> None:
    """A ConfigError where WHAT is asked for with another engine, which it does not start."""
    if config.kind != "hf":
        raise ConfigError(f"{what} has replies written by transformers; leave out engine.kind={config.kind}")


PLACE = (*PlaceConfig.model_fields, "checkpointing")
"""Settings of `model` that may change between a run and its resume or its evaluation."""
MAY_CHANGE = (
    *(f"model.{name}" for name in PLACE),
    *(f"engine.{name}" for name in EngineConfig.model_fields),
    *(f"launcher.{name}" for name in LauncherConfig.model_fields),
)
"""The same, by their dotted names, and those of what writes replies and of who does the work."""


class HereConfig(Settings):
    """What may be told to whatever uses a stored policy.

    Attributes:
      model: where its backbone computes.
    """

    model: PlaceConfig = PlaceConfig()


class CloneConfig(Settings):
    """Behaviour cloning, eq. 17.

    Attributes:
      backbone: what learns beside A1 and A2: nothing, LoRA adapters, or every weight.
      epochs, batch_size: passes over the training dialogues and pairs, and how many of them per step (Table 4).
      lr: learning rate of A1 and A2.
      lr_backbone: learning rate of the adapters or of the backbone.
      lora_rank: rank of the adapters.
      lora_layers: "above" the layer that H(h) is read from, so that H(h) can be stored, or "all".
      rejected: what stands in for a rejected reply where the data have none: nothing, or the bare backbone's reply.
      steer: strength with which actions also shift the reply's hidden states, at the layer where H(h) is read; 0: no
        shift, actions are input embeddings only, as in the paper. So it is where no history has two replies.
      directions: along which directions they do: those in which preferred and rejected replies differ most
        ("contrasts"), or those that change most what is said ("likelihood").
      gain: how far A1's actions reach where they shift: RMS of what depends on the state, that of contrasts being 1.
      noise: standard deviation of the noise on actions while cloning, relative to their RMS.
      context_dropout: share of turns whose reply is learned without sight of the earlier turns.
      clip: largest gradient norm.
      save_every: steps between checkpoints.
      max_context, max_reply: longest history and reply, in tokens (Table 4).
      pack_tokens: most tokens of a step's dialogues that learn in one pass, where the model can; a longer dialogue is
        alone. 0: what suits the device, 1 on a CPU and 4096 elsewhere. Changes memory and the last digits.
    """

    backbone: Literal["frozen", "lora", "full"] = "lora"
    epochs: int = Field(default=2, ge=1)
    batch_size: int = Field(default=6, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    lr_backbone: float = Field(default=8e-4, gt=0)
    lora_rank: int = Field(default=8, ge=1)
    lora_layers: Literal["above", "all"] = "above"
    rejected: Literal["data", "backbone"] = "data"
    steer: float = Field(default=1.0, ge=0)
    directions: Literal["contrasts", "likelihood"] = "contrasts"
    gain: float = Field(default=2.0, gt=0)
    noise: float = Field(default=0.5, ge=0)
    context_dropout: float = Field(default=0.5, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    save_every: int = Field(default=16, ge=1)
    max_context: int = Field(default=1200, ge=8)
    max_reply: int = Field(default=128, ge=1)
    pack_tokens: int = Field(default=0, ge=0)


class RLConfig(Settings):
    """Reinforcement learning, eqs. 6, 9, 12 and 14.

    Attributes:
      advantage: the estimator, by name; everything else of a comparison stays equal.
      gradient: how an advantage reaches A1: by the density of the "action" (eq. 12), or by how the likelihood of the
        "reply" changes with the action, which has less variance and also learns from replies that others wrote.
      epochs, batch_size: passes over the stored transitions, and transitions per step (Table 4: 5, 32).
      actor_every: critic updates per actor update, f_a of Table 4.
      lr_actor, lr_critic: learning rates (Table 4: 5e-5, 5e-4).
      kl: weight of the leash to the cloned policy (c_kl of Table 4: .05).
      gamma: discount factor (Table 4).
      horizon: most turns of a dialogue, T of Table 4; reaching it truncates.
      sigma: standard deviation of the action, relative to the RMS of the cloned action. Cloning sets it; where
        reinforcement asks for another one, the cloned policy's is rescaled, and where it asks for none, it stays.
      beta: weight of the oracle critic in `dcrl`.
      leave_one_out: subtract what the other samples of the same state have in common (for `odc`: one more control).
      normalize: divide advantages by their standard deviation.
      clip: range of the importance ratio over the epochs on one batch; absent: eq. 12 as it is, without a ratio.
      permute: control: shuffle the advantages, so that noise is learned (`pamdp eval RUN --permuted RUN2`).
      moves: how A1 moves: "gains" of each number of the action, along "components" of H(h), or "all" of it (the paper).
      components: how many, where it moves along them; 0: by the same for every state.
      rounds: how often replies are drawn from the current policy and learned from.
      samples: replies drawn for each state in a round.
      reference: what the reward compares a reply with: the cloned policy's reply, Vanilla's, or the record's
        preferred one.
      soft: reward by the judge's probabilities (same mean, less variance) instead of its verdict.
      profile: what the judge and V(h, ω) see: the whole persona, or what could be inferred by the turn.
      max_reply: longest reply, in tokens (n_g of Table 4).
      temperature: of the tokens of replies that are learned from; 0: a reply is a function of history and action.
      form_states: on how many states a round is held to the clone's form (train/trust_region.py); 0: on none.
      form_margin: by how much the shares of garbled and of blemished replies may exceed the clone's.
      dialogues: how many dialogues advance together; bounds memory, does not change results.
      paper_literal: eq. 14 to the letter of the paper, and the horizon ends a dialogue: nothing is bootstrapped at T.
    """

    advantage: Annotated[str, known(ADVANTAGES)] = "pamdp"
    gradient: Literal["action", "reply"] = "action"
    beta: float = Field(default=0.5, gt=0, le=1)
    leave_one_out: bool = True
    normalize: bool = True
    clip: float | None = Field(default=None, gt=0)
    permute: bool = False
    moves: Literal["gains", "components", "all"] = "gains"
    components: int = Field(default=4, ge=0)
    rounds: int = Field(default=1, ge=1)
    samples: int = Field(default=8, ge=1)
    reference: Literal["clone", "vanilla", "preferred"] = "clone"
    soft: bool = True
    profile: Literal["persona", "inferred"] = "persona"
    max_reply: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    form_states: int = Field(default=48, ge=0)
    form_margin: float = Field(default=0.02, ge=0)
    dialogues: int = Field(default=16, ge=1)
    epochs: int = Field(default=60, ge=1)
    batch_size: int = Field(default=256, ge=1)
    actor_every: int = Field(default=5, ge=1)
    lr_actor: float = Field(default=1e-2, gt=0)
    lr_critic: float = Field(default=5e-4, gt=0)
    kl: float = Field(default=0.01, ge=0)
    gamma: float = Field(default=0.99, ge=0, le=1)
    horizon: int = Field(default=6, ge=1)
    sigma: float = Field(default=0.5, gt=0)
    paper_literal: bool = False


class OnlineConfig(Settings):
    """Learning from dialogues with simulated users (section 4.2, eq. 16). Horizon and advantage are those of `rl`.

    Attributes:
      rounds: how many batches of dialogues are played and learned from.
      users: users of one batch; their dialogues advance together.
      groups: a batch is parted into so many groups, one of which writes while the others wait for their users.
      user: who users are, by name: "simulated" by the model `simulator`, "recorded" ones who say what their record
        says, or a registered one, which need not ask any model.
      difficulty: how freely simulated users tell of themselves.
      opening: simulated users begin with the first message of their record, or with one of their own.
      reference: what the reward compares a reply with: the cloned policy's reply, Vanilla's, or one that the model
        `writer` writes (the paper).
      simulator, profiler, writer: who plays the user, infers its profile (where rl.profile is "inferred"), and writes
        references.
    """

    rounds: int = Field(default=6, ge=1)
    users: int = Field(default=8, ge=1)
    groups: int = Field(default=2, ge=1)
    user: Annotated[str, known(USERS)] = "simulated"
    difficulty: Literal["cooperative", "reserved", "topic-changing"] = "cooperative"
    opening: Literal["recorded", "own"] = "recorded"
    reference: Literal["clone", "vanilla", "written"] = "clone"
    simulator: SimulatorConfig = SimulatorConfig()
    profiler: EndpointConfig = EndpointConfig()
    writer: EndpointConfig = EndpointConfig()


ONLINE = {"online.judge": "judge", "online.both_orders": "judge.both_orders", "online.cache": "cache"}
"""Settings of the judge that stood under `online` before every verb had the same one."""


class EvalConfig(HereConfig):
    """What `pamdp eval` may be told beside the run's own settings: `judge`, and where and how it computes.

    Attributes:
      engine: what writes replies.
      judge: how judges that are language models are reached; which ones grade, `--judges` says.
      launcher: who does the work.
    """

    renamed: ClassVar = {"grader": "judge"}
    engine: EngineConfig = EngineConfig()
    judge: JudgeConfig = JudgeConfig()
    launcher: LauncherConfig = LauncherConfig()


class Config(Settings):
    """Everything that decides what a run computes.

    Attributes:
      seed: the one seed; every part derives its own from it.
      judge: who rewards, offline and online, and how other judges that are language models are reached.
      cache: folder of remembered answers, shared by runs; absent: the user's cache folder.
      launcher: who does the work.
      data, model, engine, clone, rl, online: the parts.
    """

    renamed: ClassVar = ONLINE
    seed: int = Field(default=0, ge=0)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    engine: EngineConfig = EngineConfig()
    clone: CloneConfig = CloneConfig()
    rl: RLConfig = RLConfig()
    judge: JudgeConfig = JudgeConfig()
    cache: str | None = None
    launcher: LauncherConfig = LauncherConfig()
    online: OnlineConfig = OnlineConfig()
