"""The learner: batches by hand, the direction it learns in, what must not move it, and what a resumed run needs."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from pamdp.config import RLConfig
from pamdp.errors import JudgeError
from pamdp.learner import Learner, residuals_after
from pamdp.models.actor import Actor
from pamdp.models.actor_delta import ComponentDelta, FullDelta
from pamdp.models.critics import DualCritic
from pamdp.rl.checks import AdvantageInputs
from pamdp.transitions import Batch, Rollout, Transition, log_drawn, to_batch

D_A, WIDTH, STATES, K = 3, 5, 16, 4
PLAIN = RLConfig(
    advantage="a2c", leave_one_out=False, normalize=False, actor_every=1, batch_size=512, epochs=1, moves="all"
)


def _learner(config: RLConfig, seed: int = 0) -> Learner:
    torch.manual_seed(seed)
    actor = Actor(WIDTH, D_A)
    actor.sigma.fill_(0.5)
    return Learner(actor, DualCritic(WIDTH, WIDTH, 7.5), config)


def _batch(learner: Learner, seed: int = 1) -> Batch:
    """Samples of the actor's own distribution in random states; the reward is the action's first number."""
    g = torch.Generator().manual_seed(seed)
    h, hw = torch.randn(STATES, WIDTH, generator=g), torch.randn(STATES, WIDTH, generator=g)
    state = torch.arange(STATES).repeat_interleave(K)
    after = torch.where(state % 2 == 0, state + 1, -1)
    with torch.no_grad():
        mean = learner.actor()(h)[state]
    noise = torch.randn(mean.shape, generator=g)
    action, sigma = mean + learner.actor().sigma * noise, torch.full((len(state),), 0.5)
    return Batch(h, hw, state, after, action, mean, sigma, noise[:, 0], torch.ones(len(state), dtype=torch.bool))


def _moved(learner: Learner, batch: Batch) -> torch.Tensor:
    """Mean move of the actor's mean over states, in units of σ."""
    with torch.no_grad():
        return (learner.actor()(batch.h) - learner.reference(batch.h)).mean(0) / learner.actor().sigma


def _g() -> torch.Generator:
    return torch.Generator().manual_seed(9)


def test_to_batch_by_hand() -> None:
    one, two = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    rollout = Rollout(
        [
            Transition("d", 0, 0, "u", one, two, 0.5, 0.5, ("d", 1)),
            Transition("d", 0, 1, "v", two, two, 0.5, None, ("d", 1)),
            Transition("d", 1, 0, "w", one, one, 0.0, -1.0, None),
            Transition("d", 1, 1, "no planner", None, None, 0.0, 1.0, None),
        ],
        {},
        {("d", 0): torch.tensor([1.0]), ("d", 1): torch.tensor([2.0])},
        {("d", 0): torch.tensor([3.0]), ("d", 1): torch.tensor([4.0])},
    )
    other = Rollout(
        [Transition("e", 0, 0, "u", two, one, 0.25, 0.0, None)],
        {},
        {("e", 0): torch.tensor([5.0])},
        {("e", 0): torch.tensor([6.0])},
    )
    batch = to_batch([rollout, other])
    assert batch.h.tolist() == [[1], [2], [5]] and batch.hw.tolist() == [[3], [4], [6]]
    assert batch.state.tolist() == [0, 0, 1, 2] and batch.after.tolist() == [1, 1, -1, -1]
    assert batch.action.tolist() == [[1, 0], [0, 2], [1, 0], [0, 2]]
    assert batch.mean.tolist() == [[0, 2], [0, 2], [1, 0], [1, 0]]
    # a reward of 0 counts; a masked one does not
    assert batch.reward.tolist() == [0.5, 0, -1, 0] and batch.kept.tolist() == [True, False, True, True]
    # a mean action is no draw: it teaches the critics, not the actor
    assert batch.sigma.tolist() == [0.5, 0.5, 0, 0.25] and batch.acts.tolist() == [True, False, False, True]
    # the paper has nothing to bootstrap from where the horizon cut a dialogue off
    cut = replace(rollout, transitions=[replace(t, truncated=t.t == 0) for t in rollout.transitions])
    assert to_batch([cut]).after.tolist() == [1, 1, -1]
    assert to_batch([cut], ends_at_horizon=True).after.tolist() == [-1, -1, -1]
    part = batch.pick(torch.tensor([2, 0]))
    assert part.state.tolist() == [1, 0] and part.reward.tolist() == [-1, 0.5] and part.h is batch.h


def test_inputs_bootstrap_where_a_dialogue_goes_on() -> None:
    learner = _learner(PLAIN)
    torch.nn.init.normal_(learner.critics.v_h.head.weight)
    torch.nn.init.normal_(learner.critics.v_hw.head.weight)
    batch = _batch(learner)
    inputs = learner.inputs(batch)
    on = batch.after >= 0
    assert inputs.discount[on].unique().tolist() == pytest.approx([0.99]) and not inputs.discount[~on].any()
    with torch.no_grad():
        assert torch.equal(inputs.v_h_next[on], learner.critics.v_h(batch.h)[batch.after[on]])
        assert torch.equal(inputs.v_hw_next[on], learner.critics.v_hw(batch.hw)[batch.after[on]])
        assert torch.equal(inputs.v_h, learner.critics.v_h(batch.h)[batch.state])


def _by_hand(rewards: list[float], states: list[int], kept: list[bool] | None = None) -> Batch:
    n = len(rewards)
    zeros, counts = torch.zeros(n, D_A), torch.ones(n, dtype=torch.bool) if kept is None else torch.tensor(kept)
    h = torch.randn(max(states) + 1, WIDTH, generator=_g())
    drawn = (zeros, zeros, torch.full((n,), 0.5))
    return Batch(h, h, torch.tensor(states), torch.full((n,), -1), *drawn, torch.tensor(rewards), counts)


def test_own_states_are_the_same_transitions() -> None:
    learner = _learner(PLAIN)
    torch.nn.init.normal_(learner.critics.v_h.head.weight)
    whole = _batch(learner)
    part = whole.pick(torch.tensor([40, 3, 41, 62]))
    own = part.own()
    assert len(own.h) < len(part.h) and torch.equal(own.after < 0, part.after < 0)
    assert torch.equal(own.h[own.state], part.h[part.state]) and torch.equal(own.hw[own.state], part.hw[part.state])
    on = part.after >= 0
    assert bool(on.any()) and not bool(on.all())
    assert torch.equal(own.h[own.after[on]], part.h[part.after[on]])
    mine, theirs = learner.values(own), learner.values(part)
    for name in ("reward", "discount", "v_h", "v_h_next", "v_hw", "v_hw_next"):
        torch.testing.assert_close(getattr(mine, name), getattr(theirs, name))


def test_leave_one_out_by_hand() -> None:
    """Critics are zero at first, so an advantage is the reward, less the mean of the state's other samples."""
    learner = _learner(PLAIN.model_copy(update={"leave_one_out": True}))
    batch = _by_hand([1, 2, 6, 3, 5], [0, 1, 0, 0, 2])
    delta = learner.advantages(batch, learner.inputs(batch))
    assert delta.tolist() == pytest.approx([1 - 4.5, 2, 6 - 2, 3 - 3.5, 5])
    masked = _by_hand([1, 2, 99, 3, 5], [0, 1, 0, 0, 2], [True, True, False, True, True])
    found = learner.advantages(masked, learner.inputs(masked))
    assert found[masked.kept].tolist() == pytest.approx([1 - 3, 2, 3 - 1, 5])


def test_normalised_advantages_have_unit_spread_unless_there_is_none() -> None:
    learner = _learner(PLAIN.model_copy(update={"normalize": True}))
    batch = _by_hand([1, 2, 6], [0, 1, 2])
    assert float(learner.advantages(batch, learner.inputs(batch)).std()) == pytest.approx(1)
    for rewards in ([2.0, 2.0], [2.0]):
        flat = _by_hand(rewards, list(range(len(rewards))))
        assert learner.advantages(flat, learner.inputs(flat)).tolist() == rewards


def test_one_transition_is_enough_to_stay_finite() -> None:
    learner = _learner(RLConfig(actor_every=1, epochs=2))
    learner.update(_by_hand([1.0, 0.0], [0, 1], [True, False]), _g())
    assert all(bool(p.isfinite().all()) for p in (*learner.actor().parameters(), *learner.critics.parameters()))


@pytest.mark.parametrize("advantage", ["pamdp", "odc"])
def test_masked_transitions_change_nothing(advantage: str) -> None:
    config = RLConfig(advantage=advantage, actor_every=1, lr_actor=1e-2, epochs=2, batch_size=16)
    ends = []
    for broken in (False, True):
        learner = _learner(config)
        batch = _batch(learner)
        if broken:  # more rows, with values that would spoil everything they touch
            n, nan = 8, math.nan
            batch = Batch(
                torch.cat([batch.h, torch.full((1, WIDTH), nan)]), torch.cat([batch.hw, torch.full((1, WIDTH), nan)]),
                torch.cat([torch.full((n,), STATES), batch.state]), torch.cat([torch.full((n,), -1), batch.after]),
                torch.cat([torch.full((n, D_A), nan), batch.action]), torch.cat([torch.zeros(n, D_A), batch.mean]),
                torch.cat([torch.full((n,), 0.5), batch.sigma]),
                torch.cat([torch.full((n,), 50.0), batch.reward]), torch.cat([torch.zeros(n).bool(), batch.kept]),
            )  # fmt: skip
        log = learner.update(batch, _g())
        assert [row["masked"] for row in log] == pytest.approx([8 / 72 if broken else 0.0] * 2)
        ends.append([*learner.actor().state_dict().values(), *learner.critics.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_errors_at_the_next_state_by_hand() -> None:
    """State 0 leads to state 1, which two replies answer; one of state 1's goes on to state 2, where nobody replied."""
    n, x = 3, torch.zeros(3, WIDTH)
    batch = Batch(
        x, x, torch.tensor([0, 1, 1]), torch.tensor([1, 2, -1]), torch.zeros(n, D_A), torch.zeros(n, D_A),
        torch.full((n,), 0.5), torch.tensor([0.0, 1.0, 3.0]), torch.ones(n, dtype=torch.bool),
    )  # fmt: skip
    v_h, v_hw = torch.tensor([0.0, 2.0, 2.0]), torch.tensor([0.0, 1.0, 1.0])
    inputs = AdvantageInputs(batch.reward, torch.tensor([1.0, 1.0, 0.0]), v_h, torch.zeros(n), v_hw, torch.zeros(n))
    of_h, of_hw = residuals_after(batch, inputs)
    assert of_h.tolist() == [1.0, 0.0, 0.0]  # ((1 − 2)² + (3 − 2)²)/2
    assert of_hw.tolist() == [2.0, 0.0, 0.0]  # ((1 − 1)² + (3 − 1)²)/2


def test_a_round_without_any_verdict_is_an_error() -> None:
    learner = _learner(PLAIN)
    with pytest.raises(JudgeError, match="every reply"):
        learner.update(_by_hand([0.0, 0.0], [0, 1], [False, False]), _g())


RIGHT_WAY = RLConfig(actor_every=1, lr_actor=3e-3, lr_critic=5e-3, kl=0.0, epochs=20, batch_size=32, moves="components")


@pytest.mark.parametrize("advantage", ["a2c", "pamdp", "uaac", "dcrl", "odc", "odc_safe"])
def test_the_actor_moves_towards_reward(advantage: str) -> None:
    learner = _learner(RIGHT_WAY.model_copy(update={"advantage": advantage}))
    batch = _batch(learner)
    log = learner.update(batch, _g())
    moved = _moved(learner, batch)
    assert len(log) == 20 and all(math.isfinite(v) for v in log[-1].values())
    assert moved[0] > 0.1 and moved[0] > 1.2 * moved[1:].abs().max()


def test_permuted_advantages_teach_nothing() -> None:
    """The control: the same update on shuffled advantages has no direction; averaged over seeds it goes nowhere."""
    moves = {False: 0.0, True: 0.0}
    for permute in moves:
        for seed in range(4):
            learner = _learner(RIGHT_WAY.model_copy(update={"permute": permute, "epochs": 4}))
            batch = _batch(learner, seed)
            learner.update(batch, torch.Generator().manual_seed(seed))
            moves[permute] += float(_moved(learner, batch)[0]) / 4
    assert moves[False] > 0.04 and abs(moves[True]) < moves[False] / 3


def test_the_leash_bounds_the_move() -> None:
    ends = []
    for kl in (0.0, 10.0):
        learner = _learner(RIGHT_WAY.model_copy(update={"kl": kl}))
        batch = _batch(learner)
        learner.update(batch, _g())
        with torch.no_grad():
            gap = (learner.actor()(batch.h) - learner.reference(batch.h)) / learner.actor().sigma
        ends.append(float(gap.square().sum(-1).mean()))
    assert ends[1] < ends[0] / 5


def test_the_actor_waits_for_the_critics() -> None:
    learner = _learner(PLAIN.model_copy(update={"actor_every": 3}))
    batch, before = _batch(learner), learner.actor().a1.weight.detach().clone()
    for _ in range(2):
        learner.update(batch, _g())
        assert torch.equal(learner.actor().a1.weight, before)
    learner.update(batch, _g())
    assert not torch.equal(learner.actor().a1.weight, before)


@pytest.mark.parametrize(("literal", "value"), [(False, 1.0), (True, 0.5)])
def test_paper_literal_halves_what_critics_learn(literal: bool, value: float) -> None:
    """Eq. 14 to the letter has its fixed point at half the reward; the default has it at the reward."""
    update = {"paper_literal": literal, "lr_critic": 2e-2, "epochs": 150}
    learner = _learner(PLAIN.model_copy(update=update))
    batch = replace(_by_hand([1.0] * 8, list(range(8))), h=torch.zeros(8, WIDTH), hw=torch.zeros(8, WIDTH))
    learner.update(batch, _g())
    with torch.no_grad():
        for critic in (learner.critics.v_h, learner.critics.v_hw):
            assert critic(batch.h).tolist() == pytest.approx([value] * 8, abs=0.1)


@pytest.mark.parametrize("advantage", ["odc", "pamdp"])
def test_a_learner_goes_on_from_its_state(advantage: str) -> None:
    config = RLConfig(moves="components", advantage=advantage, actor_every=3, lr_actor=1e-2, epochs=2, batch_size=16)
    first, second = _learner(config), _learner(config, seed=5)
    batch = _batch(first)
    first.fit(batch)
    first.update(batch, _g())
    second.delta.load_state_dict(first.delta.state_dict())
    second.critics.load_state_dict(first.critics.state_dict())
    second.reference.load_state_dict(first.reference.state_dict())
    second.actor_optimizer.load_state_dict(copy.deepcopy(first.actor_optimizer.state_dict()))
    second.critic_optimizer.load_state_dict(copy.deepcopy(first.critic_optimizer.state_dict()))
    second.load_state(first.state())
    assert second.state() == first.state() and second.updates == 8
    assert first.update(batch, _g()) == second.update(batch, _g())
    assert torch.equal(first.actor().a1.weight, second.actor().a1.weight)


def test_the_actor_moves_along_what_the_settings_name_and_nowhere_else() -> None:
    ranks = []
    for kind in ("components", "gains", "all"):
        learner = _learner(PLAIN.model_copy(update={"moves": kind, "components": 2, "lr_actor": 0.05, "epochs": 5}))
        batch = _batch(learner)
        learner.fit(batch)
        learner.update(batch, _g())
        moved = (learner.actor().a1.weight - learner.reference.a1.weight).detach()
        ranks.append(int(torch.linalg.matrix_rank(moved, atol=1e-5)))
        if isinstance(learner.delta, ComponentDelta):
            torch.testing.assert_close(moved @ torch.linalg.pinv(learner.delta.basis) @ learner.delta.basis, moved)
        if kind == "gains":
            gain = moved / learner.reference.a1.weight.detach()
            torch.testing.assert_close(gain, gain[:, :1].expand_as(gain))
    assert ranks == [2, 3, 3]


def test_without_a_clip_range_the_step_is_eq_12() -> None:
    """The gradient of one step on fresh samples is that of −δ·log q; a clip range changes nothing there yet."""
    steps = []
    for clip in (None, 0.2):
        learner = _learner(PLAIN.model_copy(update={"clip": clip, "kl": 0.0}))
        batch = _batch(learner)
        learner.update(batch, _g())
        steps.append([p.grad for p in learner.delta.parameters()])
    torch.testing.assert_close(steps[0], steps[1])


def _off_policy(learner: Learner) -> Batch:
    """Actions that another policy drew, with another σ and from elsewhere; the reward is the action's first number."""
    batch = _batch(learner)
    g = torch.Generator().manual_seed(4)
    mean = batch.mean + 0.2
    action = mean + 0.4 * torch.randn(mean.shape, generator=g)
    return replace(batch, action=action, mean=mean, sigma=torch.full_like(batch.sigma, 0.4), reward=action[:, 0])


def test_the_density_below_the_ratio_is_that_of_the_draw() -> None:
    """By hand in float64: two rows of two policies, and one that was not drawn."""
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    batch = replace(_by_hand([1.0, 1.0, 1.0], [0, 1, 2]), action=rows, sigma=torch.tensor([0.5, 2.0, 0.0]))
    constant = [-3 * math.log(s * math.sqrt(2 * math.pi)) for s in (0.5, 2.0)]
    wanted = [-1 / (2 * 0.25) + constant[0], -4 / (2 * 4.0) + constant[1], 0.0]
    assert log_drawn(batch).tolist() == pytest.approx(wanted, rel=1e-6)


def test_the_ratio_undoes_who_drew() -> None:
    """The first step on another policy's draws: the gradient of -mean(ratio * delta), the ratio by both densities."""
    learner = _learner(PLAIN.model_copy(update={"clip": 1e9, "kl": 0.0}))
    batch = _off_policy(learner)
    inputs = learner.inputs(batch)
    delta = learner.advantages(batch, inputs)
    mean = learner.reference(batch.h)[batch.state].detach()
    top = torch.distributions.Normal(mean, 0.5).log_prob(batch.action).sum(-1)
    bottom = torch.distributions.Normal(batch.mean, 0.4).log_prob(batch.action).sum(-1)
    ratio = (top - bottom).exp()
    assert float(ratio.max() / ratio.min()) > 10
    score = (batch.action - mean) / 0.25
    wanted = -(ratio[:, None] * delta[:, None] * score).mean(0)
    learner.update(batch, _g())
    assert isinstance(learner.delta, FullDelta) and learner.delta.bias.grad is not None
    # the norm of all gradients is clipped, their direction is not
    assert torch.nn.functional.cosine_similarity(learner.delta.bias.grad, wanted, dim=0) > 0.9999


def test_what_was_not_drawn_teaches_critics_only() -> None:
    learner = _learner(PLAIN.model_copy(update={"clip": 0.2, "kl": 0.0, "normalize": True}))
    batch = _batch(learner)
    learner.update(replace(batch, sigma=torch.zeros_like(batch.sigma)), _g())
    assert torch.equal(learner.actor().a1.weight, learner.reference.a1.weight)
    assert bool(learner.critics.v_h.head.bias.detach().abs() > 0)


def test_replies_teach_along_their_scores_whatever_their_actions_were() -> None:
    learner = _learner(replace_config(gradient="reply", kl=0.0))
    batch = _batch(learner)
    score = torch.zeros_like(batch.action)
    score[:, 1] = batch.reward  # rewarded replies become likelier with the second number of the action
    learner.fit(batch)
    for _ in range(20):
        learner.update(replace(batch, score=score, sigma=torch.zeros_like(batch.sigma)), _g())
    moved = _moved(learner, batch)
    assert moved[1] > 0.05
    assert moved[[0, 2]].abs().max() < moved[1] / 4


def test_a_reply_without_a_score_teaches_critics_only() -> None:
    learner = _learner(replace_config(gradient="reply"))
    batch = replace(_batch(learner), score=torch.zeros(STATES * K, D_A))
    assert not batch.acts.any()
    learner.fit(batch)
    learner.update(batch, _g())
    assert _moved(learner, batch).abs().max() == 0


def test_scores_of_some_replies_leave_the_others_to_the_critics() -> None:
    one = torch.tensor([1.0, 0.0])
    rows = [
        Transition("d", 0, 0, "u", one, one, 0.5, 1.0, None, score=torch.tensor([0.0, 2.0])),
        Transition("d", 0, 1, "v", one, one, 0.5, -1.0, None),
    ]
    h = {("d", 0): torch.tensor([1.0])}
    batch = to_batch([Rollout(rows, {}, h, h)])
    assert batch.score is not None and batch.score.tolist() == [[0.0, 2.0], [0.0, 0.0]]
    assert batch.acts.tolist() == [True, False]


def replace_config(**changes: object) -> RLConfig:
    return PLAIN.model_copy(update=changes)
