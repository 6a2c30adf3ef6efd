"""The language model as the rest of the project sees it: one clean pass, then branches that continue from it.

Owns hidden states H, their read-outs, key-value caches and log-likelihoods. Knows nothing of actions, rewards or users
beyond text. Loading a model from disk is in models/embedded.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerFast

from pamdp.errors import ModelError
from pamdp.fingerprint import Identity
from pamdp.models.attention import use_grouped_attention
from pamdp.models.chat import ChatEncoder, Encoded
from pamdp.models.families import ends_of, inputs_of, logits_of, most_positions, numbers_of, require_usable, trunk_of
from pamdp.models.prefix import Prefix, continues, fork, grown

if TYPE_CHECKING:
    from pamdp.models.writer import Writer


@dataclass(frozen=True, slots=True)
class Readout:
    """Where H(h) is read.

    Attributes:
      places: any of "header" (the assistant header, where the reply starts), "user" (mean over the last user
        message) and "users" (mean over all user messages so far); several are concatenated.
      layer: index of the hidden layer, 0 the embeddings, -1 the last (after the final norm).
    """

    places: tuple[str, ...] = ("users", "user")
    layer: int = -1

    def __post_init__(self) -> None:
        unknown = set(self.places) - {"header", "user", "users"}
        if unknown or not self.places:
            raise ModelError(f"unknown read-out {sorted(unknown)}; use header, user, users")


class Backbone:
    """Any Hugging Face causal LM with a key-value cache, its tokenizer, and its adapters.

    NAME and REVISION identify the weights in fingerprints and checkpoints. CHECKPOINTING says which passes keep less
    for their gradient; GROUPED has it attend by groups of heads, where the model can. A
    ModelError for a model that cannot be used (`families.require_usable`). Adapters may lose their last policy in any
    thread; `defer` takes them off: at once, unless a thread that owns the model does it between two passes. `kept` is
    what the replies written last leave to the next ones (models/generate.py). Where there is a `writer`, it writes
    policies' replies in place of `generate`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        name: str = "",
        revision: str = "",
        checkpointing: Literal["auto", "on", "off"] = "auto",
        grouped: bool = True,
    ) -> None:
        self.model, self.tokenizer, self.name, self.revision = model, tokenizer, name, revision
        self.checkpointing = checkpointing
        require_usable(model)
        if grouped:
            use_grouped_attention(model)
        self.chat = ChatEncoder(tokenizer, ends_of(model))
        self.trunk, self.layers = trunk_of(model)
        self.embed: nn.Embedding = model.get_input_embeddings()
        self.most = most_positions(model)
        self.d = int(model.config.get_text_config().hidden_size)
        self.defer: Callable[[Callable[[], None]], object] = lambda work: work()
        self.kept: object = None
        self.writer: Writer | None = None
        self.model.requires_grad_(False)
        self.model.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(next(self.model.parameters()).device)

    @property
    def dtype(self) -> torch.dtype:
        """The weights' type."""
        dtype: torch.dtype = next(self.model.parameters()).dtype
        return dtype

    @property
    def identity(self) -> Identity:
        """What a fingerprint notes of it."""
        numbers = numbers_of(self.model)
        return Identity(model=self.name, revision=self.revision, dtype=numbers[0], quantization=numbers[1])

    @property
    def numbers(self) -> tuple[str, ...]:
        """What tells its features and answers from those in float32: nothing, or type and quantization."""
        found = numbers_of(self.model)
        return () if found == ("float32", "none") else found

    @property
    def positions(self) -> int | None:
        """Most tokens that the model has positions for, all turned alike; None where it sets no limit."""
        limits = getattr(self.model.config.get_text_config(), "max_position_embeddings", None), self.most
        return min((limit for limit in limits if limit is not None), default=None)

    @contextmanager
    def adapter(self, name: str | None) -> Iterator[None]:
        """Use the LoRA adapter NAME, or the bare model for None, inside the block."""
        config = getattr(self.model, "peft_config", {})
        if name is not None and name not in config:
            raise ModelError(f"no adapter named {name!r} is loaded")
        if not config or name == (before := self.active):  # switching walks through all modules and weights
            yield
            return
        self.switch(name)
        try:
            yield
        finally:
            self.switch(before)

    @property
    def active(self) -> str | None:
        """Name of the adapter in use, None for the bare model."""
        layers = (module for module in self.model.modules() if isinstance(module, BaseTunerLayer))
        layer = next(layers, None)
        if layer is None or layer.disable_adapters or not layer.active_adapters:
            return None
        return str(layer.active_adapters[0])

    def switch(self, name: str | None) -> None:
        """Make the adapter NAME active, or none; `adapter` does it for a block. What learns stays as it is."""
        with self._learning():
            if name is None:
                self.model.disable_adapters()
            else:
                self.model.enable_adapters()
                self.model.set_adapter(name)

    def delete_adapter(self, name: str) -> None:
        """Take the adapter NAME off the model, if it is there and not in use; what learns and what is active stays."""
        if name not in getattr(self.model, "peft_config", {}) or name == self.active:
            return
        before, self.kept = self.active, None  # another one of this name may stand where it stood
        with self._learning(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Adapter .* was active")
            self.model.delete_adapter(name)
        if getattr(self.model, "peft_config", None):
            self.switch(before)

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """Peft freezes what it disables and unfreezes what it activates; only a trainer decides what learns."""
        learning = [weight for weight in self.model.parameters() if weight.requires_grad]
        yield
        self.model.requires_grad_(False)
        for weight in learning:
            weight.requires_grad_(True)

    def prefix(self, encoded: Encoded, layer: int = -1, before: Prefix | None = None, shallow: bool = False) -> Prefix:
        """One clean pass over a history (with gradient where parameters want it).

        Args:
          layer: hidden layer that read-outs see.
          before: a prefix of the same dialogue's earlier turn (see `continues`); only what is new is run.
          shallow: stop at LAYER: enough for read-outs; `final` then is `states`, and only shallow passes continue it.
        """
        self.require_room(len(encoded.ids))
        done = continues(encoded, before)
        ids = torch.tensor([encoded.ids[done:]], device=self.device)
        cache = DynamicCache() if before is None else fork(before.cache)
        states, final = self.run(
            layer,
            shallow,
            input_ids=ids,
            position_ids=torch.arange(done, done + ids.shape[1], device=self.device)[None],
            past_key_values=cache,
        )
        return grown(encoded, cache, before, states, final)

    def run(self, layer: int, shallow: bool = False, **inputs: object) -> tuple[Tensor, Tensor]:
        """States of one row of tokens at LAYER and after the final norm, each [tokens, d]; grows the cache in INPUTS.

        A SHALLOW pass stops at LAYER; both results are then its states.
        """
        final: Tensor | None = None
        with self.reading(layer, shallow) as caught:
            final = self.trunk(**{"use_cache": True, **inputs}).last_hidden_state[0]
        states = caught[0].reshape(-1, self.d) if caught else final
        assert states is not None
        return states, states if final is None else final

    @contextmanager
    def reading(self, layer: int, shallow: bool = False) -> Iterator[list[Tensor]]:
        """Catch the hidden states of LAYER (0 the embeddings) in passes inside the block; catches nothing for -1.

        SHALLOW leaves the block as soon as they are caught.
        """
        caught: list[Tensor] = []
        if layer == -1:
            yield caught
            return

        def catch(_module: nn.Module, given: tuple[Tensor, ...], out: Tensor | tuple[Tensor, ...] = ()) -> None:
            found = out if layer else given
            caught.append(found[0] if isinstance(found, tuple) else found)
            if shallow:
                raise _Caught

        first = self.layers[0].register_forward_pre_hook
        with self.layers[layer - 1].register_forward_hook(catch) if layer else first(catch), suppress(_Caught):
            yield caught

    @contextmanager
    def steering(self, layer: int, vectors: Tensor | None) -> Iterator[None]:
        """Add VECTORS, broadcast to [rows, tokens, d], to the hidden states of LAYER in passes inside the block.

        A ModelError where LAYER is none between two: 0 are the embeddings, -1 comes after the final norm.
        """
        if vectors is None:
            yield
            return
        vectors = vectors.to(self.dtype)
        self.require_between(layer)

        def add(_module: nn.Module, _input: object, out: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
            return (out[0] + vectors, *out[1:]) if isinstance(out, tuple) else out + vectors

        with self.layers[layer - 1].register_forward_hook(add):
            yield

    def require_between(self, layer: int) -> None:
        """A ModelError where LAYER is none between two: its hidden states cannot be shifted."""
        if layer < 1:
            raise ModelError(f"hidden states of layer {layer} cannot be shifted; choose one between two layers")

    def layer_at(self, depth: float) -> int:
        """The hidden layer at a share of the backbone's depth; 1 gives -1, the last layer after the final norm."""
        layers = len(self.layers)
        layer = round(depth * layers)
        return -1 if layer >= layers else layer

    def require_room(self, tokens: int) -> None:
        """A ModelError for a text of more TOKENS than keep their meaning beside shorter ones."""
        if self.most is not None and tokens > self.most:
            raise ModelError(
                f"{tokens} tokens are too many for {self.name or 'this model'}: beyond {self.most} it turns all "
                "positions otherwise; shorten the dialogues or the replies"
            )

    def head(self, states: Tensor) -> Tensor:
        """Logits [n, vocabulary] of final states [n, d]."""
        return logits_of(self.model, self.trunk, states)

    def inputs(self, embeds: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """What the trunk is given for embeddings [rows, n, d] of tokens IDS [rows, n], -1 where one is no token's.

        Here, and in `steering`, what a planner made in float32 comes into the model's own type.
        """
        return inputs_of(self.trunk, embeds.to(self.dtype), ids)

    def embed_ids(self, ids: Sequence[int]) -> Tensor:
        """Input embeddings of tokens, [n, d]."""
        return torch.as_tensor(self.embed(torch.tensor(list(ids), dtype=torch.long, device=self.device)))


class _Caught(Exception):
    """A shallow pass has what it came for."""
