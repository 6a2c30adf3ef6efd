"""Packed log-probabilities and gradients are those of one plain sequence a turn, whatever learns."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pamdp.errors import ShapeError
from pamdp.models import packed_branches
from pamdp.models.actor import Planner
from pamdp.models.backbone import Backbone
from pamdp.models.generate import DecodeRow, Sampling, generate
from pamdp.models.packed_branches import Branch, branch_log_probs, packed_log_probs
from pamdp.models.prefill import prefill
from pamdp.types import Message
from tests.tools import naive
from tests.tools.chats import ECHO, NURSE, SYSTEM
from tests.tools.tiny import make_tiny_backbone

PLACES = ("users", "user")
REPLIES = ("Tea it is.", "A long answer about soup, bread and nights, with émincé 🙂.", "ok")


@pytest.fixture
def backbone(make_backbone: Callable[..., Backbone]) -> Backbone:
    return make_backbone(dtype=torch.float64)


def planner_for(backbone: Backbone, n: int) -> Planner:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        planner = Planner(backbone.d * len(PLACES), backbone.d, d_a=8, n=n).to(backbone.dtype)
        torch.nn.init.normal_(planner.injector.a2.weight, std=0.5)
    return planner


def set_learning(backbone: Backbone, mode: str) -> list[torch.nn.Parameter]:
    """Parameters of the backbone that learn under MODE."""
    if mode == "lora":
        backbone.model.add_adapter(LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"]), "clone")
        generator = torch.Generator().manual_seed(1)
        for key, weight in backbone.model.named_parameters():
            if "lora_" in key:
                weight.data.normal_(std=0.3, generator=generator)
    elif mode == "full":
        backbone.model.requires_grad_(True)
    return [weight for weight in backbone.model.parameters() if weight.requires_grad]


def gradients(loss: Tensor, weights: list[torch.nn.Parameter]) -> list[Tensor]:
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, weights, strict=True)]


def naive_turn(
    backbone: Backbone, planner: Planner | None, t: int, reply: list[int], hidden: tuple[int, int] | None
) -> Tensor:
    """Turn T on its own: its history encoded from scratch, H(h_t) from a pass of its own."""
    encoded = backbone.chat.history(NURSE[: 2 * t + 1], SYSTEM)
    inject = None
    if planner is not None:
        inject = planner.injector(planner.actor(backbone.prefix(encoded).read(t, PLACES)))
    return naive.reply_log_probs(backbone, encoded.ids, inject, reply, hidden)


@pytest.mark.parametrize("mode", ["frozen", "lora", "full"])
@pytest.mark.parametrize("actions", [0, 1, 2])
@pytest.mark.parametrize("hide", [False, True])
def test_packing_equals_one_sequence_a_turn(backbone: Backbone, mode: str, actions: int, hide: bool) -> None:
    learning = set_learning(backbone, mode)
    planner = planner_for(backbone, actions) if actions else None
    weights = learning + (list(planner.parameters()) if planner else [])
    replies = [backbone.chat.reply(text) for text in REPLIES]
    encoded = backbone.chat.history(NURSE, SYSTEM)
    # Without an action the first reply token is read from the history's own last state, which sees everything.
    hidden = encoded.users[0] if hide else None
    prefix = backbone.prefix(encoded)
    branches = [
        Branch(
            encoded.heads[t],
            reply,
            planner.injector(planner.actor(prefix.read(t, PLACES))) if planner else None,
            hidden,
        )
        for t, reply in enumerate(replies)
    ]
    packed = branch_log_probs(backbone, prefix, branches)
    plain = [naive_turn(backbone, planner, t, reply, hidden) for t, reply in enumerate(replies)]
    for mine, theirs in zip(packed, plain, strict=True):
        torch.testing.assert_close(mine.double(), theirs, atol=1e-6, rtol=1e-6)
    if not weights:
        return
    # Every token has a weight of its own, so that no two errors can cancel.
    scale = torch.linspace(0.5, 2.0, sum(map(len, replies)), dtype=torch.float64)
    mine_grad = gradients((torch.cat(packed) * scale).sum(), weights)
    plain_grad = gradients((torch.cat(plain) * scale).sum(), weights)
    assert any(bool(g.norm() > 1e-3) for g in plain_grad)
    for mine, theirs in zip(mine_grad, plain_grad, strict=True):
        assert float((mine - theirs).norm()) <= 1e-4 * float(theirs.norm()) + 1e-9


def test_the_gradient_reaches_the_backbone_through_h(backbone: Backbone) -> None:
    """What remains of the gradient when the action is cut off from H(h) is not all of it, and the rest is right."""
    learning = set_learning(backbone, "full")
    planner = planner_for(backbone, 1)
    encoded = backbone.chat.history(NURSE, SYSTEM)
    reply = backbone.chat.reply(REPLIES[1])

    def share_of_h(packed: bool) -> list[Tensor]:
        found = []
        for cut in (False, True):
            prefix = backbone.prefix(encoded)
            inject = planner.injector(planner.actor(prefix.read(2, PLACES)))
            inject = inject.detach() if cut else inject
            if packed:
                [log_probs] = branch_log_probs(backbone, prefix, [Branch(encoded.heads[2], reply, inject)])
            else:
                log_probs = naive.reply_log_probs(backbone, encoded.ids, inject, reply)
            found.append(gradients(log_probs.sum(), learning))
        return [whole - rest for whole, rest in zip(*found, strict=True)]

    mine, theirs = share_of_h(packed=True), share_of_h(packed=False)
    assert sum(float(g.norm()) for g in theirs) > 0.1
    for a, b in zip(mine, theirs, strict=True):
        assert float((a - b).norm()) <= 1e-4 * float(b.norm()) + 1e-6


def test_an_adapter_learns_although_its_block_has_ended(backbone: Backbone) -> None:
    learning = set_learning(backbone, "lora")
    encoded = backbone.chat.history(NURSE, SYSTEM)
    branch = Branch(encoded.heads[1], backbone.chat.reply("tea"))
    with backbone.adapter("clone"):
        inside = branch_log_probs(backbone, backbone.prefix(encoded), [branch])[0].sum()
        expected = gradients(inside, learning)
        with backbone.adapter(None):
            backbone.prefix(encoded)
        after = branch_log_probs(backbone, backbone.prefix(encoded), [branch])[0].sum()
    found = gradients(after, learning)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert any(bool(g.norm() > 0) for g in found)


def test_several_replies_to_one_turn_do_not_see_one_another(backbone: Backbone) -> None:
    encoded = backbone.chat.history(ECHO, SYSTEM)
    prefix = backbone.prefix(encoded)
    branches = [Branch(encoded.heads[t], backbone.chat.reply(text)) for t in (2, 0, 2) for text in REPLIES]
    together = branch_log_probs(backbone, prefix, branches)
    for branch, found in zip(branches, together, strict=True):
        [alone] = branch_log_probs(backbone, prefix, [branch])
        torch.testing.assert_close(found, alone)
        plain = naive.reply_log_probs(backbone, encoded.ids[: branch.length], None, branch.ids)
        torch.testing.assert_close(found.double(), plain, atol=1e-6, rtol=1e-6)


def test_replies_of_one_token_need_no_pass(backbone: Backbone) -> None:
    encoded = backbone.chat.history(NURSE, SYSTEM)
    branches = [Branch(encoded.heads[t], [backbone.chat.end]) for t in range(3)]
    found = branch_log_probs(backbone, backbone.prefix(encoded), branches)
    for branch, mine in zip(branches, found, strict=True):
        plain = naive.reply_log_probs(backbone, encoded.ids[: branch.length], None, branch.ids)
        torch.testing.assert_close(mine.double(), plain, atol=1e-6, rtol=1e-6)


def test_packing_leaves_the_prefix_as_it_was(backbone: Backbone) -> None:
    encoded = backbone.chat.history(NURSE, SYSTEM)
    prefix = backbone.prefix(encoded)
    branch = Branch(encoded.heads[1], backbone.chat.reply("tea"))
    first = branch_log_probs(backbone, prefix, [branch])[0]
    assert torch.equal(first, branch_log_probs(backbone, prefix, [branch])[0])
    assert prefix.cache.get_seq_length() == len(encoded.ids)


def test_single_precision_agrees_with_the_plain_pass(tiny_backbone: Backbone) -> None:
    encoded = tiny_backbone.chat.history(NURSE, SYSTEM)
    planner = planner_for(tiny_backbone, 1)
    prefix = tiny_backbone.prefix(encoded)
    injects = [planner.injector(planner.actor(prefix.read(t, PLACES))) for t in range(3)]
    branches = [Branch(encoded.heads[t], tiny_backbone.chat.reply(REPLIES[t]), injects[t]) for t in range(3)]
    packed = torch.cat(branch_log_probs(tiny_backbone, prefix, branches))
    plain = torch.cat(
        [naive.reply_log_probs(tiny_backbone, encoded.ids[: b.length], b.inject, b.ids) for b in branches]
    )
    torch.testing.assert_close(packed.mean(), plain.mean(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("length", "ids"), [(5, []), (0, [1]), (10_000, [1])])
def test_an_impossible_branch_is_refused(backbone: Backbone, length: int, ids: list[int]) -> None:
    prefix = backbone.prefix(backbone.chat.history(NURSE, SYSTEM))
    with pytest.raises(ShapeError, match="branch 0"):
        branch_log_probs(backbone, prefix, [Branch(length, ids)])


def test_a_steered_reply_is_scored_as_it_is_written() -> None:
    """The shift reaches the tokens of its own branch and no other, in scoring as in generation."""
    tiny_backbone = make_tiny_backbone()
    encoded = tiny_backbone.chat.history((Message("user", "what is for dinner?"),), "Be kind.")
    prefix = tiny_backbone.prefix(encoded)
    g = torch.Generator().manual_seed(3)
    inject = torch.randn(2, tiny_backbone.d, generator=g)
    steer = 2 * torch.randn(tiny_backbone.d, generator=g)
    ids = tiny_backbone.chat.reply("soup, and bread")
    length = encoded.heads[0]
    plain, steered = Branch(length, ids, inject), Branch(length, ids, inject, steer=steer)
    with torch.no_grad():
        alone = branch_log_probs(tiny_backbone, prefix, [steered], 1)[0]
        beside = branch_log_probs(tiny_backbone, prefix, [plain, steered], 1)
        bare = branch_log_probs(tiny_backbone, prefix, [plain])[0]
        torch.testing.assert_close(beside[1], alone)
        torch.testing.assert_close(beside[0], bare)
        assert (alone - bare).abs().max() > 1e-2
        # By hand: the same tokens in one row, the shift added to the first layer's output behind the history.
        row = torch.cat([tiny_backbone.embed_ids(encoded.ids), inject, tiny_backbone.embed_ids(ids[:-1])])
        shift = torch.zeros_like(row)
        shift[length:] = steer
        with tiny_backbone.steering(1, shift):
            states = tiny_backbone.trunk(inputs_embeds=row[None]).last_hidden_state[0]
        expected = tiny_backbone.head(states[length + 1 :]).log_softmax(-1)
        torch.testing.assert_close(alone, expected.gather(1, torch.tensor(ids)[:, None])[:, 0], atol=1e-4, rtol=1e-4)
        greedy = Sampling(4, repetition_penalty=1.0)
        written = generate(tiny_backbone, [prefix], [DecodeRow(0, length, inject, 0, steer)], greedy, layer=1)[0]
        scores = []
        for token in range(len(tiny_backbone.tokenizer)):
            first = Branch(length, [token], inject, steer=steer)
            scores.append(float(branch_log_probs(tiny_backbone, prefix, [first], 1)[0]))
        assert written[0] == max(range(len(scores)), key=scores.__getitem__)


class _Tables(TorchDispatchMode):
    """The number of rows of every tensor that is as wide as the vocabulary, other than the weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.rows = width, list[int]()

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        out = func(*args, **(kwargs or {}))  # type: ignore[operator]
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor) and tensor.ndim > 1 and tensor.shape[-1] == self.width:
                self.rows.append(tensor.numel() // self.width)
        return out


@pytest.mark.parametrize("mode", ["frozen", "lora", "full"])
def test_no_table_of_logits_for_the_whole_dialogue_is_ever_built(
    make_backbone: Callable[..., Backbone], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither forward nor backward, whatever learns: only states that predict a reply meet the vocabulary."""
    backbone = make_backbone()
    learning = set_learning(backbone, mode)
    planner = planner_for(backbone, 1)
    encoded = backbone.chat.history(NURSE, SYSTEM)
    replies = [backbone.chat.reply(text) for text in REPLIES]
    said = sum(map(len, replies))
    most = backbone.d + 8  # the weights themselves are a table of d rows when they are transposed
    assert most < said < len(encoded.ids)
    monkeypatch.setattr(packed_branches, "ROWS", most)
    with _Tables(len(backbone.tokenizer)) as tables:
        prefix = backbone.prefix(encoded)
        actions = [planner.injector(planner.actor(prefix.read(t, PLACES))) for t in range(3)]
        branches = [Branch(encoded.heads[t], replies[t], actions[t]) for t in range(3)]
        log_probs = torch.cat(branch_log_probs(backbone, prefix, branches))
        gradients(log_probs.sum(), [*learning, *planner.parameters()])
    assert said <= len(log_probs) and tables.rows
    assert max(tables.rows) <= most
    # The detector sees what it is there to see.
    with _Tables(len(backbone.tokenizer)) as tables:
        naive.forward(backbone, encoded.ids, None, replies[0])
    assert max(tables.rows) > len(encoded.ids)


def test_head_by_parts_gives_what_it_gives_at_once(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = backbone.chat.history(NURSE, SYSTEM)
    prefix = backbone.prefix(encoded)
    branches = [Branch(encoded.heads[t], backbone.chat.reply(text)) for t, text in enumerate(REPLIES)]
    whole = branch_log_probs(backbone, prefix, branches)
    monkeypatch.setattr(packed_branches, "ROWS", 5)
    parts = branch_log_probs(backbone, prefix, branches)
    assert [len(x) for x in parts] == [len(b.ids) for b in branches]
    for mine, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_tokens_of_all_branches_are_looked_up_once(backbone: Backbone) -> None:
    """Where embeddings learn, the gradient of every look-up, an empty one too, is as large as their table."""
    encoded = backbone.chat.history(NURSE, SYSTEM)
    prefix, looked_up = backbone.prefix(encoded), list[int]()
    backbone.embed.register_forward_hook(lambda _m, given, _out: looked_up.append(given[0].numel()))
    replies = [backbone.chat.reply(text) for text in REPLIES]
    branch_log_probs(backbone, prefix, [Branch(encoded.heads[1], reply) for reply in replies])
    assert looked_up == [sum(map(len, replies)) - len(replies)]


@pytest.mark.parametrize("mode", ["frozen", "lora", "full"])
def test_branches_of_several_histories_learn_in_one_pass(mode: str) -> None:
    """Ragged: injected, steered, plain, hidden and one-token replies; a history without branches; one of one token."""
    backbone = make_tiny_backbone(dtype=torch.float64)
    learning, planner = set_learning(backbone, mode), planner_for(backbone, 1)
    short, long, one = (backbone.chat.reply(text) for text in REPLIES)
    steer = torch.linspace(-1, 1, backbone.d, dtype=torch.float64, requires_grad=True)
    weights = [*learning, *planner.parameters(), steer]
    encoded = [backbone.chat.history(chat, SYSTEM) for chat in (NURSE, ECHO, NURSE[:3], NURSE[:1])]

    def losses(together: bool) -> list[Tensor]:
        prefixes = prefill(backbone, encoded)
        action = planner.injector(planner.actor(prefixes[0].read(1, PLACES)))
        heads, hidden = [one.heads for one in encoded], encoded[0].users[0]
        branches = [
            [Branch(heads[0][2], long, action, hidden), Branch(heads[0][0], short), Branch(heads[0][0], one)],
            [],
            [Branch(heads[2][1], short, None, None, steer), Branch(heads[2][0], long, action, None, steer)],
            [Branch(heads[3][0], one[:1])],
        ]  # fmt: skip
        if together:
            return [scores for own in packed_log_probs(backbone, prefixes, branches, 1) for scores in own]
        every = zip(prefixes, branches, strict=True)
        return [scores for prefix, own in every for scores in branch_log_probs(backbone, prefix, own, 1)]

    rows: list[int] = []
    backbone.trunk.layers[0].mlp.register_forward_hook(lambda _m, _i, out: rows.append(out.shape[1]))
    found, wanted = losses(together=True), losses(together=False)
    assert len(rows) == 2 + 3  # a pass over histories and one over all branches; then one for each history's own
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    for mine, theirs in zip(*(gradients(torch.cat(x).square().sum(), weights) for x in (found, wanted)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


def test_a_history_sees_no_other_ones_branches(backbone: Backbone) -> None:
    """Whatever stands beside it, a reply is as likely."""
    encoded = [backbone.chat.history(chat, SYSTEM) for chat in (NURSE, ECHO)]
    prefixes = prefill(backbone, encoded)
    reply, other = (backbone.chat.reply(text) for text in REPLIES[:2])
    first = [Branch(encoded[0].heads[-1], reply)]
    found = [
        packed_log_probs(backbone, prefixes, [first, [Branch(encoded[1].heads[-1], beside)]])[0][0]
        for beside in (reply, other)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)
