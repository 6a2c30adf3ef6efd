"""Cloning in one process or in several: replicas (DDP, through accelerate) or shards (FSDP2) of the weights that learn.

Owns who does what of a step, the module whose gradients are reduced, and the way of weights and optimizer states
between shards and whole tensors. Knows nothing of losses. A step's gradient is that of the sum over all its examples,
whoever did them: several processes compute what one would.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import torch
import torch.distributed as dist
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from pamdp import ranks
from pamdp.checkpoint import Tree
from pamdp.errors import ConfigError
from pamdp.models.beside import rows_of
from pamdp.models.place import wide
from pamdp.models.policy import Policy
from pamdp.progress import note

Loss = Callable[..., Tensor]
"""Of a policy, and of what a pass is about."""
Pass = tuple[Sequence[int], float]
"""The numbers of some examples in their step, and how much each counts in a gradient that is averaged."""


class Alone:
    """One process: everything is where it is, and nothing has to be reduced.

    Attributes:
      policy: the one that computes; its weights are those that the optimizer moves.
    """

    def __init__(self, policy: Policy, loss: Loss) -> None:
        self.policy = policy
        self.forward: Callable[..., Tensor] = partial(loss, policy)

    def passes(self, sizes: Sequence[int], most: int) -> list[Pass]:
        """The passes of this process over a step's examples of SIZES tokens, each of at most MOST or of one example."""
        return [(own, 1.0) for own in rows_of(sizes, most)]

    def syncing(self, last: bool) -> AbstractContextManager[object]:
        """A pass of a step, LAST or not, inside the block."""
        return nullcontext()

    def tied(self, loss: Tensor, final: Tensor) -> Tensor:
        """LOSS, computed from the keys and values of a pass that ended in the states FINAL."""
        return loss

    def clip(self, parameters: Sequence[nn.Parameter], most: float) -> Tensor:
        """Complete the gradients, and shorten them to a norm of MOST; the norm they had."""
        return nn.utils.clip_grad_norm_(parameters, most)

    def summed(self, values: Tensor) -> Tensor:
        """The sum of all processes' VALUES."""
        return values

    def whole(self, tree: Tree) -> Tree:
        """TREE with whole tensors in place of shards; all processes ask for it, in the same order."""
        return tree

    def part(self, value: Tensor, like: Tensor) -> Tensor:
        """What this process keeps of a whole VALUE, as it does of LIKE."""
        return value

    def end(self) -> None:
        """Nothing more will be learned: the policy that was given has what was."""


class _Several(Alone):
    """One process of several. `module` is what reduces gradients; set by subclasses."""

    module: nn.Module

    def passes(self, sizes: Sequence[int], most: int) -> list[Pass]:
        """Every n-th example.

        All processes have to come to every pass: whoever could do with fewer parts them, and whoever has too few
        examples for that does the first one once more, for nothing.
        """
        size = ranks.world_size()
        every = [rows_of(sizes[rank::size], most) for rank in range(size)]
        own = [[ranks.rank() + size * i for i in row] for row in every[ranks.rank()]]
        while len(own) < max(map(len, every)):
            longest = max(own, key=len, default=[])
            own.append([longest.pop()] if len(longest) > 1 else [])
        return [(some, float(size)) if some else ([0], 0.0) for some in own]

    def summed(self, values: Tensor) -> Tensor:
        """The sum of all processes' VALUES."""
        dist.all_reduce(values)
        return values

    def end(self) -> None:
        """Take hooks off the weights."""
        del self.module, self.forward


class Replicated(_Several):
    """DDP: every process has all weights; gradients are averaged in the step's last pass."""

    module: DistributedDataParallel

    def __init__(self, policy: Policy, loss: Loss) -> None:
        super().__init__(policy, loss)
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        # The type that a model computes in is `model.dtype`'s to say.
        cpu = policy.backbone.device.type == "cpu"
        accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[unused])
        self.module = self.forward = accelerator.prepare_model(_Root(policy, loss), device_placement=False)
        learned = (p for p in policy.backbone.model.parameters() if p.requires_grad)
        # Gradients of a half type are taken to float32 pass by pass; they cannot wait for the last one.
        self.waits = all(wide(p.dtype) == p.dtype for p in learned)

    def syncing(self, last: bool) -> AbstractContextManager[object]:
        """Only the last pass averages, where it can wait."""
        return self.module.no_sync() if self.waits and not last else nullcontext()


class Sharded(_Several):
    """FSDP2: each process keeps a part of every weight, gradient and optimizer state of the backbone.

    What is sharded is a twin of the backbone with modules of its own; the given one keeps no weights until `end`. The
    planner, which is small, is replicated, and its gradients are averaged here.
    """

    def __init__(self, policy: Policy, loss: Loss) -> None:
        backbone, self.given = policy.backbone, policy.backbone.model
        kept: dict[int, object] = {id(x): x for x in (*self.given.parameters(), *self.given.buffers())}
        twin = copy.deepcopy(backbone, {**kept, id(backbone.tokenizer): backbone.tokenizer})
        super().__init__(replace(policy, backbone=twin), loss)
        if backbone.device.type == "cuda":
            torch.cuda.set_device(backbone.device)
        mesh = init_device_mesh(backbone.device.type, (ranks.world_size(),))
        reduced, asked = MixedPrecisionPolicy(reduce_dtype=torch.float32), FullyShardedDataParallelPlugin()
        for layer in twin.layers:
            fully_shard(layer, mesh=mesh, reshard_after_forward=asked.reshard_after_forward, mp_policy=reduced)
        root = _Root(self.policy, loss)
        ignored = set(root.planner.parameters())
        fully_shard(root, mesh=mesh, mp_policy=reduced, ignored_params=ignored)  # in place
        self.module = self.forward = root
        for weight in self.given.parameters():
            weight.data = weight.data.new_empty(0)

    def passes(self, sizes: Sequence[int], most: int) -> list[Pass]:
        """One example a pass: layers are gathered as often in every process."""
        return super().passes(sizes, 1)

    def tied(self, loss: Tensor, final: Tensor) -> Tensor:
        """LOSS with a gradient of zero to FINAL: a layer is gathered for gradients of its states, not of its keys."""
        return loss + 0 * final.sum()

    def clip(self, parameters: Sequence[nn.Parameter], most: float) -> Tensor:
        """Complete the planner's gradients, and shorten all; shards and whole tensors have one norm."""
        kinds = [[p for p in parameters if isinstance(p, DTensor) is sharded] for sharded in (False, True)]
        _average(kinds[0])
        norms = list[Tensor]()
        for grads in ([p.grad for p in kind if p.grad is not None] for kind in kinds):
            if grads:
                found = nn.utils.get_total_norm(grads)
                norms.append(found.full_tensor() if isinstance(found, DTensor) else found)
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        for kind in kinds:
            nn.utils.clip_grads_with_norm_(kind, most, norm)
        return norm

    def whole(self, tree: Tree) -> Tree:
        """TREE with whole tensors, on the CPU, in place of shards: the device holds one of them at a time."""
        if isinstance(tree, DTensor):
            return torch.as_tensor(tree.full_tensor().cpu())
        if isinstance(tree, dict):
            return {key: self.whole(value) for key, value in tree.items()}  # type: ignore[return-value]
        return [self.whole(value) for value in tree] if isinstance(tree, list) else tree

    def part(self, value: Tensor, like: Tensor) -> Tensor:
        """The shard of VALUE where LIKE is one of a tensor of its shape."""
        if not isinstance(like, DTensor) or value.shape != like.shape:
            return value
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)

    @torch.no_grad()
    def end(self) -> None:
        """Put whole weights back into the given backbone."""
        for weight, shard in zip(self.given.parameters(), self.policy.backbone.model.parameters(), strict=True):
            weight.data = shard.full_tensor() if isinstance(shard, DTensor) else shard.data
        super().end()


class _Root(nn.Module):
    """All that learns, and the loss as its forward pass: what wraps it sees every use of every weight."""

    def __init__(self, policy: Policy, loss: Loss) -> None:
        super().__init__()
        self.model, self.planner = policy.backbone.model, policy.trained_planner
        self.loss = partial(loss, policy)

    def forward(self, *about: object) -> Tensor:
        """The loss of one pass."""
        return self.loss(*about)


def parallel(policy: Policy, loss: Loss) -> Alone:
    """How POLICY learns in the processes that were started; weights that a checkpoint holds are set before."""
    if ranks.world_size() == 1:
        return Alone(policy, loss)
    ranks.gather(None)  # the group is ours: processes may wait longer for one another than by default
    note(f"cloning: {ranks.world_size()} processes, {'shards (FSDP2)' if _shards() else 'replicas (DDP)'}")
    return (Sharded if _shards() else Replicated)(policy, loss)


def require_launch(quantization: str) -> None:
    """A ConfigError for what accelerate was told and cloning does not do; QUANTIZATION is the model's."""
    if ranks.world_size() == 1:
        return
    for name, wanted, fix in _LAUNCHED:
        if (found := os.environ.get(name, wanted).lower()) != wanted:
            raise ConfigError(f"accelerate was launched with {name}={found}; {fix}")
    if _shards() and (version := os.environ.get("FSDP_VERSION", "1")) != "2":
        raise ConfigError(f"accelerate was launched with FSDP_VERSION={version}; set fsdp_version: 2")
    if _shards() and quantization != "none":
        raise ConfigError(f"weights in {quantization} cannot be sharded; launch with MULTI_GPU in place of FSDP")


def _shards() -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


_LAUNCHED = (
    ("ACCELERATE_USE_DEEPSPEED", "false", "use distributed_type MULTI_GPU or FSDP"),
    ("ACCELERATE_USE_MEGATRON_LM", "false", "use distributed_type MULTI_GPU or FSDP"),
    ("ACCELERATE_MIXED_PRECISION", "no", "set mixed_precision: no; model.dtype says in which type a model computes"),
    ("ACCELERATE_DYNAMO_BACKEND", "no", "leave dynamo_config out: passes of all lengths would be compiled one by one"),
    ("FSDP_OFFLOAD_PARAMS", "false", "set fsdp_offload_params: false"),
    ("FSDP_ACTIVATION_CHECKPOINTING", "false", "set fsdp_activation_checkpointing: false; see model.checkpointing"),
)
"""What accelerate puts into the environment, the one value that cloning can do with, and what to do about others."""


def _average(parameters: Iterable[nn.Parameter]) -> None:
    """The mean of all processes' gradients; one that no process has stays none."""
    for parameter in parameters:
        has = torch.tensor(float(parameter.grad is not None), device=parameter.device)
        dist.all_reduce(has)
        if has:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            dist.all_reduce(parameter.grad)
            parameter.grad /= ranks.world_size()
