"""What runs inside vLLM: it shifts hidden states of replies, and draws tokens as `generate` does.

Owns the two hooks that vLLM offers, a worker extension and a logits processor; vLLM finds both by their names here.
Knows nothing of policies. A request says all that they need: where its shift begins and how its tokens are drawn in
`SamplingParams.extra_args`, and the shift itself in a row of its prompt embeddings (engines/vllm.py says why).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from pamdp.models.draw import pick, uniform
from pamdp.models.generate import Sampling


class Shifting:
    """Worker extension: adds a request's own vector to its hidden states of one layer, from one position on."""

    model_runner: Any  # vLLM's own, which has no type for those outside

    def shift_at(self, layer: int) -> None:
        """Let requests shift the hidden states of LAYER, 1 or more, from now on."""
        known: set[int] = self.__dict__.setdefault("_shifted_layers", set())
        if layer not in known:
            known.add(layer)
            self.model_runner.get_model().model.layers[layer - 1].register_forward_hook(partial(self._shift, layer))

    def _shift(self, layer: int, _module: nn.Module, given: tuple[Tensor, ...], out: tuple[Tensor, ...]) -> None:
        """Add to what LAYER's own sublayers gave: what it was given is added to that by the next layer."""
        runner, positions = self.model_runner, given[0]
        starts = runner.query_start_loc.np
        for i, name in enumerate(runner.input_batch.req_ids):
            request = runner.requests[name]
            shift = (request.sampling_params.extra_args or {}).get("shift")
            if shift is None or shift["layer"] != layer:
                continue
            tokens = slice(int(starts[i]), int(starts[i + 1]))
            said = (positions[tokens] >= shift["start"])[:, None]
            out[0][tokens] += said * request.prompt_embeds[shift["row"]].to(out[0])


class _Row(NamedTuple):
    said: list[int]  # vLLM's own list, which grows
    sampling: Sampling
    uniform: Tensor


class Drawing(LogitsProcessor):  # type: ignore[misc]  # vLLM is not there where types are checked
    """Logits processor: leaves each row the one token that `pick` draws for it, by the row's own random numbers."""

    def __init__(self, vllm_config: object, device: torch.device, is_pin_memory: bool) -> None:
        self.rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        """It is not: vLLM's own draw, which is greedy, comes after it."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Rows that come, leave and move."""
        process_dict_updates(self.rows, batch_update, _row)

    def apply(self, logits: Tensor) -> Tensor:
        """Logits [rows, vocabulary] that are -inf but for the tokens drawn; those with as many tokens together."""
        if not self.rows:  # a pass that measures memory
            return logits
        alike: dict[tuple[int, Sampling], list[int]] = {}
        for i in range(len(logits)):
            alike.setdefault((len(self.rows[i].said), self.rows[i].sampling), []).append(i)
        out = torch.full_like(logits, -torch.inf)
        for (n, sampling), some in alike.items():
            said = torch.tensor([self.rows[i].said for i in some], dtype=torch.long, device=logits.device)
            at_random = torch.stack([self.rows[i].uniform[n] for i in some]).to(logits)
            token = pick(logits[some], said.reshape(len(some), n), at_random, sampling)
            out[torch.tensor(some, device=logits.device), token] = 0
        return out


def _row(params: SamplingParams, _prompt: list[int] | None, said: list[int]) -> _Row:
    drawn = params.extra_args["draw"]
    sampling = Sampling(**drawn["sampling"])
    return _Row(said, sampling, uniform(drawn["seed"], sampling.max_tokens))
